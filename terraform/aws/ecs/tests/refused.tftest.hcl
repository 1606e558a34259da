# Values that cannot work, each refused by the variable that has it.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/made" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:111122223333:loadbalancer/app/fanfare/1" }
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

run "a_lone_sentinel_is_refused" {
  command = plan
  variables {
    redis_url = "rediss-sentinel://sentinel.example.internal:26379"
  }
  expect_failures = [var.redis_url]
}

run "an_init_image_without_a_tag_is_refused" {
  command = plan
  variables {
    init_image = "public.ecr.aws/docker/library/busybox"
  }
  expect_failures = [var.init_image]
}

run "memory_that_fargate_has_not_is_refused" {
  command = plan
  variables {
    cpu    = 256
    memory = 8192
  }
  expect_failures = [var.memory]
}

run "memory_between_two_steps_is_refused" {
  command = plan
  variables {
    memory = 2049
  }
  expect_failures = [var.memory]
}

run "memory_below_what_fargate_has_is_refused" {
  command = plan
  variables {
    cpu    = 16384
    memory = 512
  }
  expect_failures = [var.memory]
}

run "a_cpu_that_fargate_has_not_is_refused" {
  command = plan
  variables {
    cpu = 300
  }
  expect_failures = [var.cpu]
}

run "a_size_without_its_memory_is_refused" {
  command = plan
  variables {
    size   = "enterprise"
    cpu    = 256
    memory = 512
  }
  expect_failures = [var.memory]
}

run "an_ipv6_network_is_refused" {
  command = plan
  variables {
    allowed_cidrs = ["2001:db8::/32"]
  }
  expect_failures = [var.allowed_cidrs]
}

run "days_that_cloudwatch_has_not_is_refused" {
  command = plan
  variables {
    log_retention_days = 100
  }
  expect_failures = [var.log_retention_days]
}

run "parts_of_a_node_is_refused" {
  command = plan
  variables {
    nodes_max = 7.5
  }
  expect_failures = [var.nodes_max]
}

run "what_is_no_key_is_refused" {
  command = plan
  variables {
    kms_key_arn = "not an arn"
  }
  expect_failures = [var.kms_key_arn]
}

run "what_is_no_web_acl_is_refused" {
  command = plan
  variables {
    web_acl_arn = "x"
  }
  expect_failures = [var.web_acl_arn]
}

run "one_name_for_all_nodes_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_SERVER__NODE_ID = "fanfare-0" }
  }
  expect_failures = [var.extra_environment]
}

run "the_size_in_extra_environment_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_SIZE = "large" }
  }
  expect_failures = [var.extra_environment]
}

run "the_environment_in_extra_environment_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_ENV = "staging" }
  }
  expect_failures = [var.extra_environment]
}

run "connections_max_in_extra_environment_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_SERVER__CONNECTIONS_MAX = "5" }
  }
  expect_failures = [var.extra_environment]
}

run "the_queue_in_extra_environment_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_QUEUE__CAPACITY = "5" }
  }
  expect_failures = [var.extra_environment]
}

run "headers_in_plain_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_TELEMETRY__HEADERS = "authorization=key" }
  }
  expect_failures = [var.extra_environment]
}

run "headers_of_one_signal_in_plain_is_refused" {
  command = plan
  variables {
    extra_environment = { OTEL_EXPORTER_OTLP_TRACES_HEADERS = "authorization=key" }
  }
  expect_failures = [var.extra_environment]
}

run "a_login_in_a_url_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_TELEMETRY__ENDPOINT = "https://user:key@collector.example.com" }
  }
  expect_failures = [var.extra_environment]
}

run "a_plain_further_secret_is_refused" {
  command = plan
  variables {
    secret_environment = { FANFARE_TELEMETRY__HEADERS = "authorization=key" }
  }
  expect_failures = [var.secret_environment]
}

run "a_further_secret_with_a_variable_of_its_own_is_refused" {
  command = plan
  variables {
    secret_environment = { FANFARE_API__KEYS = "arn:aws:ssm:eu-central-1:111122223333:parameter/k" }
  }
  expect_failures = [var.secret_environment]
}

run "a_queue_that_cannot_ask_for_every_node_is_refused" {
  command = plan
  variables {
    nodes_max      = 100
    queue_capacity = 50000
  }
  expect_failures = [var.queue_capacity]
}

run "shards_without_tls_are_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_REDIS__SHARDS = "rediss://a:6379,redis://b:6379" }
  }
  expect_failures = [var.extra_environment]
}
