# Values that cannot work, each refused by the variable that has it.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/made" }
  }
}

variables {
  subnet_ids      = ["subnet-a", "subnet-b"]
  admin_role_arns = ["arn:aws:iam::111122223333:role/platform"]
  redis_url       = "rediss-cluster://redis.example.internal:6379"
}

run "a_password_in_the_url_is_refused" {
  command = plan
  variables {
    redis_url = "rediss://fanfare:topsecret@h"
  }
  expect_failures = [var.redis_url]
}

run "the_internet_in_halves_is_refused" {
  command = plan
  variables {
    public_access_cidrs = ["0.0.0.0/1", "128.0.0.0/1"]
  }
  expect_failures = [var.public_access_cidrs]
}

run "an_ipv6_network_is_refused" {
  command = plan
  variables {
    public_access_cidrs = ["2001:db8::/32"]
  }
  expect_failures = [var.public_access_cidrs]
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
