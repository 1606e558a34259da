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
}

run "everything_is_planned_and_made" {
  assert {
    condition     = output.api_url == "http://api.fanfare.internal:8081"
    error_message = "Backends must be told where the API is."
  }
  assert {
    condition     = output.ecs_drain == "scripts/ecs-drain --cluster fanfare --service fanfare --stop-s 79 --delay-s 300"
    error_message = "Whoever updates must be told what to run."
  }
}

run "in_three_zones" {
  variables {
    zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  }
  assert {
    condition     = length(module.network.private_subnet_ids) == 3
    error_message = "Each zone must have its subnets."
  }
}
