# Values that cannot work, each refused by the variable that has it.

mock_provider "aws" {
  mock_resource "aws_cloudformation_stack" {
    defaults = {
      outputs = {
        UserId    = "fanfare-nodes"
        SecretArn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:fanfare/redis-AbCdEf"
      }
    }
  }
  mock_resource "aws_elasticache_replication_group" {
    defaults = { configuration_endpoint_address = "clustercfg.fanfare-redis.example.internal" }
  }
}

variables {
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b"]
  client_security_group_ids = { nodes = "sg-nodes" }
}

run "more_shards_than_partitions_are_for_is_refused" {
  command = plan
  variables {
    shards = 40
  }
  expect_failures = [var.shards]
}

run "an_engine_that_is_not_offered_is_refused" {
  command = plan
  variables {
    engine_version = "9.9"
  }
  expect_failures = [var.engine_version]
}

run "days_that_cloudwatch_has_not_is_refused" {
  command = plan
  variables {
    log_retention_days = 100
  }
  expect_failures = [var.log_retention_days]
}

run "what_is_no_key_is_refused" {
  command = plan
  variables {
    kms_key_arn = "not an arn"
  }
  expect_failures = [var.kms_key_arn]
}
