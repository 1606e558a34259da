# The longest stop is worked out here and by the node. Both must say what tests/stops.json says: the node's
# own test is tests/cli/config/terraform.rs.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

variables {
  vpc_id             = "vpc-1"
  public_subnet_ids  = ["subnet-pa", "subnet-pb"]
  private_subnet_ids = ["subnet-a", "subnet-b"]
  image              = "ghcr.io/fanfare/fanfare:0.1.0"
  certificate_arn    = "arn:aws:acm:eu-central-1:111122223333:certificate/1"
  redis_url          = "rediss-cluster://redis.example.internal:6379"
  secrets = {
    api_keys    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-keys-AbCdEf"
    hmac_secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:hmac-AbCdEf"
  }
}

run "the_stop_is_that_of_the_node_1" {
  command = plan
  variables {
    connections_max  = jsondecode(file("tests/stops.json"))[0].variables.connections_max
    drain            = jsondecode(file("tests/stops.json"))[0].variables.drain
    close_timeout_ms = jsondecode(file("tests/stops.json"))[0].variables.close_timeout_ms
    redis_timeouts   = jsondecode(file("tests/stops.json"))[0].variables.redis_timeouts
  }
  assert {
    condition     = output.stop_longest_s == jsondecode(file("tests/stops.json"))[0].stop_longest_s
    error_message = "stop_longest_s must be what the node says (tests/stops.json, case 1), and is ${output.stop_longest_s}."
  }
  assert {
    condition = alltrue([
      for name, value in jsondecode(file("tests/stops.json"))[0].environment : local.environment[name] == value
    ])
    error_message = "The node must be told all that its stop rests on."
  }
}

run "the_stop_is_that_of_the_node_2" {
  command = plan
  variables {
    connections_max  = jsondecode(file("tests/stops.json"))[1].variables.connections_max
    drain            = jsondecode(file("tests/stops.json"))[1].variables.drain
    close_timeout_ms = jsondecode(file("tests/stops.json"))[1].variables.close_timeout_ms
    redis_timeouts   = jsondecode(file("tests/stops.json"))[1].variables.redis_timeouts
  }
  assert {
    condition     = output.stop_longest_s == jsondecode(file("tests/stops.json"))[1].stop_longest_s
    error_message = "stop_longest_s must be what the node says (tests/stops.json, case 2), and is ${output.stop_longest_s}."
  }
  assert {
    condition = alltrue([
      for name, value in jsondecode(file("tests/stops.json"))[1].environment : local.environment[name] == value
    ])
    error_message = "The node must be told all that its stop rests on."
  }
}

run "the_stop_is_that_of_the_node_3" {
  command = plan
  variables {
    connections_max  = jsondecode(file("tests/stops.json"))[2].variables.connections_max
    drain            = jsondecode(file("tests/stops.json"))[2].variables.drain
    close_timeout_ms = jsondecode(file("tests/stops.json"))[2].variables.close_timeout_ms
    redis_timeouts   = jsondecode(file("tests/stops.json"))[2].variables.redis_timeouts
  }
  assert {
    condition     = output.stop_longest_s == jsondecode(file("tests/stops.json"))[2].stop_longest_s
    error_message = "stop_longest_s must be what the node says (tests/stops.json, case 3), and is ${output.stop_longest_s}."
  }
  assert {
    condition = alltrue([
      for name, value in jsondecode(file("tests/stops.json"))[2].environment : local.environment[name] == value
    ])
    error_message = "The node must be told all that its stop rests on."
  }
}

run "the_stop_is_that_of_the_node_4" {
  command = plan
  variables {
    connections_max  = jsondecode(file("tests/stops.json"))[3].variables.connections_max
    drain            = jsondecode(file("tests/stops.json"))[3].variables.drain
    close_timeout_ms = jsondecode(file("tests/stops.json"))[3].variables.close_timeout_ms
    redis_timeouts   = jsondecode(file("tests/stops.json"))[3].variables.redis_timeouts
  }
  assert {
    condition     = output.stop_longest_s == jsondecode(file("tests/stops.json"))[3].stop_longest_s
    error_message = "stop_longest_s must be what the node says (tests/stops.json, case 4), and is ${output.stop_longest_s}."
  }
  assert {
    condition = alltrue([
      for name, value in jsondecode(file("tests/stops.json"))[3].environment : local.environment[name] == value
    ])
    error_message = "The node must be told all that its stop rests on."
  }
}

run "the_stop_is_that_of_the_node_5" {
  command = plan
  variables {
    connections_max  = jsondecode(file("tests/stops.json"))[4].variables.connections_max
    drain            = jsondecode(file("tests/stops.json"))[4].variables.drain
    close_timeout_ms = jsondecode(file("tests/stops.json"))[4].variables.close_timeout_ms
    redis_timeouts   = jsondecode(file("tests/stops.json"))[4].variables.redis_timeouts
  }
  assert {
    condition     = output.stop_longest_s == jsondecode(file("tests/stops.json"))[4].stop_longest_s
    error_message = "stop_longest_s must be what the node says (tests/stops.json, case 5), and is ${output.stop_longest_s}."
  }
  assert {
    condition = alltrue([
      for name, value in jsondecode(file("tests/stops.json"))[4].environment : local.environment[name] == value
    ])
    error_message = "The node must be told all that its stop rests on."
  }
}

run "commands_at_the_end_that_do_not_fit_are_refused" {
  command = plan
  variables {
    drain = { commands_timeout_ms = 60000 }
  }
  expect_failures = [var.stop_timeout_s]
}

run "commands_to_redis_that_do_not_fit_are_refused" {
  command = plan
  variables {
    redis_timeouts = { command_ms = 20000, lease_ms = 60000 }
  }
  expect_failures = [var.stop_timeout_s]
}

run "close_frames_that_do_not_fit_are_refused" {
  command = plan
  variables {
    close_timeout_ms = 60000
  }
  expect_failures = [var.stop_timeout_s]
}

run "a_lease_shorter_than_commands_is_refused" {
  command = plan
  variables {
    redis_timeouts = { command_ms = 3000 }
  }
  expect_failures = [var.redis_timeouts]
}

run "what_the_stop_rests_on_is_refused_in_extra_environment_1" {
  command = plan
  variables {
    extra_environment = { FANFARE_DRAIN__COMMANDS_TIMEOUT_MS = "60000" }
  }
  expect_failures = [var.extra_environment]
}

run "what_the_stop_rests_on_is_refused_in_extra_environment_2" {
  command = plan
  variables {
    extra_environment = { FANFARE_REDIS__COMMAND_TIMEOUT_MS = "20000" }
  }
  expect_failures = [var.extra_environment]
}

run "what_the_stop_rests_on_is_refused_in_extra_environment_3" {
  command = plan
  variables {
    extra_environment = { FANFARE_SESSION__CLOSE_TIMEOUT_MS = "60000" }
  }
  expect_failures = [var.extra_environment]
}
