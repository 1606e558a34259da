mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/made" }
  }
  mock_resource "aws_vpc" {
    defaults = { id = "vpc-made" }
  }
  mock_resource "aws_elasticache_replication_group" {
    defaults = { configuration_endpoint_address = "clustercfg.fanfare-redis.example.internal" }
  }
  mock_resource "aws_cloudformation_stack" {
    defaults = {
      outputs = {
        UserId    = "fanfare-nodes"
        SecretArn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:fanfare/redis-AbCdEf"
      }
    }
  }
}

variables {
  image           = "ghcr.io/fanfare/fanfare:0.1.0"
  certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/1"
  secrets = {
    api_keys    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-keys-AbCdEf"
    hmac_secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:hmac-AbCdEf"
  }
  zones           = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  alarm_emails    = ["oncall@example.com"]
  admin_role_arns = ["arn:aws:iam::111122223333:role/platform"]
}

run "everything_is_planned_and_made" {
  assert {
    condition     = output.ecs_drain == "scripts/ecs-drain --cluster fanfare --service fanfare --stop-s 79 --delay-s 900"
    error_message = "Whoever updates must be told what to run."
  }
  assert {
    condition     = yamldecode(output.helm_values).redis.url == "rediss-cluster://clustercfg.fanfare-redis.example.internal:6379"
    error_message = "The chart must be told of the same Redis."
  }
  assert {
    condition     = output.postgres_endpoint == null
    error_message = "There must be no database unless it is asked for."
  }
  assert {
    condition     = output.prometheus_endpoint == null
    error_message = "There must be no alert rules over metrics that nobody collects."
  }
}

run "with_a_database" {
  variables {
    postgres = true
  }
  assert {
    condition     = output.postgres_endpoint != null
    error_message = "There must be a database where it is asked for."
  }
}
