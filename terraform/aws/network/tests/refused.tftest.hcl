# Values that cannot work, each refused by the variable that has it.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

variables {
  zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
}

run "a_network_without_room_for_a_balancer_is_refused" {
  command = plan
  variables {
    cidr = "10.20.0.0/24"
  }
  expect_failures = [var.cidr]
}

run "what_is_no_key_is_refused" {
  command = plan
  variables {
    kms_key_arn = "not an arn"
  }
  expect_failures = [var.kms_key_arn]
}
