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
  redis_user         = "fanfare"
  redis_password     = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:redis-AbCdEf:password::"
  secrets = {
    api_keys    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-keys-AbCdEf"
    hmac_secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:hmac-AbCdEf"
  }
}

run "the_node_is_told_its_ports_redis_and_drain" {
  assert {
    condition = {
      for pair in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment : pair.name => pair.value
      } == {
      FANFARE_ENV                        = "production"
      FANFARE_SIZE                       = "medium"
      FANFARE_SERVER__LISTEN             = "0.0.0.0:8080"
      FANFARE_API__LISTEN                = "0.0.0.0:8081"
      FANFARE_METRICS__LISTEN            = "0.0.0.0:9090"
      FANFARE_SERVER__CONNECTIONS_MAX    = "1000"
      FANFARE_QUEUE__CAPACITY            = "50000"
      FANFARE_REDIS__COMMAND_TIMEOUT_MS  = "2000"
      FANFARE_REDIS__LEASE_MS            = "5000"
      FANFARE_SESSION__CLOSE_TIMEOUT_MS  = "5000"
      FANFARE_DRAIN__COMMANDS_TIMEOUT_MS = "5000"
      FANFARE_REDIS__URL                 = "rediss-cluster://redis.example.internal:6379"
      FANFARE_REDIS__USER                = "fanfare"
      FANFARE_REDIS__PASSWORD_FILE       = "/run/redis/password"
      FANFARE_DRAIN__WINDOW_MS           = "30000"
      FANFARE_DRAIN__SESSIONS_PER_S      = "1000"
      FANFARE_DRAIN__DELAY_MS            = "0"
      FANFARE_TELEMETRY__EMF_NAMESPACE   = "Fanfare"
      FANFARE_TELEMETRY__SERVICE_NAME    = "fanfare"
    }
    error_message = "The node's variables are not those of docs/configuration.md."
  }
  assert {
    condition     = length(setsubtract(keys(local.environment), local.own_names)) == 0
    error_message = "What the module sets must be refused in extra_environment: ${join(", ", setsubtract(keys(local.environment), local.own_names))}."
  }
  assert {
    condition = [
      for pair in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets : pair.name
    ] == ["FANFARE_API__KEYS", "FANFARE_AUTH__HMAC_SECRET"]
    error_message = "Secrets must come from Secrets Manager, by the names of docs/configuration.md."
  }
  assert {
    condition = {
      for mapping in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].portMappings : mapping.name => mapping.containerPort
    } == { http = 8080, api = 8081, metrics = 9090 }
    error_message = "Ports must be http 8080, api 8081 and metrics 9090."
  }
}

run "the_node_is_confined" {
  assert {
    condition = (
      jsondecode(aws_ecs_task_definition.this.container_definitions)[0].user == "65532:65532" &&
      jsondecode(aws_ecs_task_definition.this.container_definitions)[0].readonlyRootFilesystem &&
      jsondecode(aws_ecs_task_definition.this.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"]
    )
    error_message = "The node must run as 65532 on a read-only root without capabilities."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].ulimits[0].hardLimit >= local.connections_max + 500
    error_message = "The limit of open files must be 500 above connections_max."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].dependsOn[0].condition == "SUCCESS"
    error_message = "The node must not start before its password stands in the file."
  }
  assert {
    condition     = !aws_ecs_service.this.network_configuration[0].assign_public_ip && !aws_ecs_service.this.enable_execute_command
    error_message = "Nodes must have no public address and no shell from outside."
  }
}

run "only_the_public_port_is_behind_the_balancer" {
  assert {
    condition = (
      aws_lb_target_group.sessions.port == 8080 &&
      aws_vpc_security_group_ingress_rule.nodes_from_balancer.from_port == 8080 &&
      one(aws_ecs_service.this.load_balancer).container_port == 8080
    )
    error_message = "The balancer must lead to the public port 8080 and to no other."
  }
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.nodes_from_balancer.to_port == 8080 &&
      aws_vpc_security_group_ingress_rule.nodes_from_balancer.referenced_security_group_id == aws_security_group.balancer.id &&
      aws_vpc_security_group_ingress_rule.nodes_from_balancer.cidr_ipv4 == null &&
      aws_vpc_security_group_egress_rule.balancer_to_nodes.from_port == 8080 &&
      aws_vpc_security_group_egress_rule.balancer_to_nodes.to_port == 8080 &&
      aws_vpc_security_group_egress_rule.balancer_to_nodes.referenced_security_group_id == aws_security_group.nodes.id
    )
    error_message = "From the balancer nodes must be reached on 8080 alone: API and metrics are not for clients."
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.clients : rule.from_port]) == toset([80, 443]) && alltrue([for rule in aws_vpc_security_group_ingress_rule.clients : rule.from_port == rule.to_port])
    error_message = "The balancer must be reached on 80 and 443 alone."
  }
  assert {
    condition     = aws_lb_target_group.sessions.health_check[0].path == "/health/live"
    error_message = "The balancer must ask /health/live: by /health/ready ECS would kill every node while Redis is away."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.api) == 0 && length(aws_vpc_security_group_ingress_rule.metrics) == 0
    error_message = "Nobody may reach API and metrics who is not named."
  }
  assert {
    condition     = aws_lb_listener.https.protocol == "HTTPS" && aws_lb_listener.redirect.default_action[0].redirect[0].protocol == "HTTPS"
    error_message = "Sessions must be by TLS alone: the listener does not speak HTTPS."
  }
  assert {
    condition     = aws_lb.this.idle_timeout == 4000 && aws_lb_target_group.sessions.load_balancing_algorithm_type == "least_outstanding_requests"
    error_message = "Idle sessions must stay, and new ones go where the fewest are."
  }
}

run "ecs_reads_the_secrets_and_nothing_else" {
  variables {
    secret_environment = { FANFARE_TELEMETRY__HEADERS = "arn:aws:ssm:eu-central-1:111122223333:parameter/headers" }
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.secrets.policy).Statement == [{
      Effect = "Allow"
      Action = ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
      Resource = [
        "arn:aws:secretsmanager:eu-central-1:111122223333:secret:api-keys-AbCdEf",
        "arn:aws:secretsmanager:eu-central-1:111122223333:secret:hmac-AbCdEf",
        "arn:aws:secretsmanager:eu-central-1:111122223333:secret:redis-AbCdEf",
        "arn:aws:ssm:eu-central-1:111122223333:parameter/headers",
      ]
    }]
    error_message = "The rights to read secrets must be those of the named secrets, and no more."
  }
  assert {
    condition     = contains(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets, { name = "FANFARE_TELEMETRY__HEADERS", valueFrom = "arn:aws:ssm:eu-central-1:111122223333:parameter/headers" })
    error_message = "A further secret must reach the node as one."
  }
  assert {
    condition     = output.stop_longest_s == 79 && aws_iam_role.task.name != aws_iam_role.execution.name && aws_ecs_task_definition.this.task_role_arn == aws_iam_role.task.arn
    error_message = "The node itself must have a role of its own, without rights."
  }
}

# What the autoscaler has set stays: run after another with a number of its own.
run "the_number_of_nodes_is_the_autoscalers" {
  variables {
    nodes_min = 5
  }
  assert {
    condition     = aws_ecs_service.this.desired_count == 3
    error_message = "An apply must not set the number of nodes back: it is the autoscaler's."
  }
  assert {
    condition     = aws_appautoscaling_target.this.min_capacity == 5
    error_message = "The autoscaler must be told of the new minimum."
  }
}

run "leaves_in_order" {
  assert {
    condition     = output.stop_longest_s == 79 && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].stopTimeout == 120
    error_message = "15 s to tell, 7.5 s to go, and 56 s are 79 s, and must fit into 120 s."
  }
  assert {
    condition     = output.drain_command == "scripts/ecs-drain --cluster fanfare --service fanfare --stop-s 79 --delay-s 300"
    error_message = "scripts/ecs-drain must be told how long a stop takes and how long the balancer waits."
  }
  assert {
    condition     = aws_lb_target_group.sessions.deregistration_delay == "300"
    error_message = "scripts/ecs-drain must have time before ECS sends SIGTERM."
  }
  assert {
    condition     = aws_ecs_service.this.deployment_minimum_healthy_percent == 100 && aws_ecs_service.this.deployment_circuit_breaker[0].rollback
    error_message = "No old node may go before the new ones run, and a bad release must be taken back."
  }
}

run "scales_by_what_nodes_tell" {
  variables {
    size = "large"
  }
  assert {
    condition = {
      for key, policy in aws_appautoscaling_policy.own :
      policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metric_name =>
      policy.target_tracking_scaling_policy_configuration[0].target_value
    } == { fanfare_queue_pressure = 1000, fanfare_sessions = 4000 }
    error_message = "Nodes must be added above fanfare_queue_pressure 1000 and fanfare_sessions of 80 % of connections_max."
  }
  assert {
    condition     = alltrue([for policy in aws_appautoscaling_policy.own : policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].statistic == "Average"])
    error_message = "The statistic must be the average: each node tells its own part, and the target is that of a node."
  }
  assert {
    condition = {
      for policy in aws_appautoscaling_policy.service :
      policy.target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type => policy.target_tracking_scaling_policy_configuration[0].target_value
    } == { ECSServiceAverageCPUUtilization = 70, ECSServiceAverageMemoryUtilization = 80 }
    error_message = "CPU over 70 % and memory over 80 % must add nodes."
  }
  assert {
    condition     = aws_appautoscaling_target.this.min_capacity == 3 && aws_appautoscaling_target.this.max_capacity == 30
    error_message = "The autoscaler must keep to nodes_min and nodes_max."
  }
  assert {
    condition     = alltrue([for policy in aws_appautoscaling_policy.own : policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].namespace == "Fanfare"])
    error_message = "The namespace must be that in which nodes write."
  }
  assert {
    condition     = alltrue([for policy in aws_appautoscaling_policy.own : one(policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].dimensions) == { name = "service", value = "fanfare" }])
    error_message = "The dimension must be the one that nodes write, service, and of this stack."
  }
  assert {
    condition     = alltrue([for policy in aws_appautoscaling_policy.own : policy.target_tracking_scaling_policy_configuration[0].scale_in_cooldown >= 2 * output.stop_longest_s])
    error_message = "The next node may go only when the one before has left."
  }
}

run "the_queue_can_ask_for_every_node" {
  command = plan
  variables {
    size                  = "medium"
    nodes_max             = 300
    queue_pressure_target = 1000
  }
  assert {
    condition     = output.queue_capacity * 0.7 >= 300 * 1000 && local.environment["FANFARE_QUEUE__CAPACITY"] == "428572"
    error_message = "70 % of the queue must hold the target of each of nodes_max nodes: priority low is refused from there on."
  }
}

run "a_small_queue_is_made_larger" {
  command = plan
  variables {
    size      = "small"
    nodes_min = 2
    nodes_max = 3
  }
  assert {
    condition     = output.queue_capacity == 4286
    error_message = "1,000 entries in all would never be 1,000 for each of three nodes."
  }
}

run "without_password_and_with_named_clients" {
  variables {
    redis_user                        = null
    redis_password                    = null
    api_client_security_group_ids     = { backend = "sg-backend" }
    metrics_client_security_group_ids = { prometheus = "sg-prometheus" }
    web_acl_arn                       = "arn:aws:wafv2:eu-central-1:111122223333:regional/webacl/w/1"
    access_log_bucket                 = "logs"
  }
  assert {
    condition     = length(jsondecode(aws_ecs_task_definition.this.container_definitions)) == 1 && length(aws_ecs_task_definition.this.volume) == 0
    error_message = "Without a password there must be one container and no volume."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.api["backend"].from_port == 8081 && aws_vpc_security_group_ingress_rule.metrics["prometheus"].from_port == 9090
    error_message = "The API is on 8081, metrics are on 9090."
  }
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.api["backend"].to_port == 8081 && aws_vpc_security_group_ingress_rule.metrics["prometheus"].to_port == 9090 &&
      aws_vpc_security_group_ingress_rule.api["backend"].referenced_security_group_id == "sg-backend" && aws_vpc_security_group_ingress_rule.api["backend"].cidr_ipv4 == null &&
      aws_vpc_security_group_ingress_rule.metrics["prometheus"].referenced_security_group_id == "sg-prometheus" && aws_vpc_security_group_ingress_rule.metrics["prometheus"].cidr_ipv4 == null
    )
    error_message = "API and metrics must be reached from the named security groups, and from no network."
  }
  assert {
    condition     = length(aws_wafv2_web_acl_association.this) == 1 && one(aws_lb.this.access_logs).enabled
    error_message = "WAF and the access log must be on where they are given."
  }
}

run "stop_over_120_s_is_refused" {
  command = plan
  variables {
    stop_timeout_s = 180
  }
  expect_failures = [var.stop_timeout_s]
}

run "a_drain_that_does_not_fit_is_refused" {
  command = plan
  variables {
    drain = { window_ms = 120000 }
  }
  expect_failures = [var.stop_timeout_s]
}

run "no_certificate_is_refused" {
  command = plan
  variables {
    certificate_arn = ""
  }
  expect_failures = [var.certificate_arn]
}

run "old_tls_is_refused" {
  command = plan
  variables {
    tls_policy = "ELBSecurityPolicy-2016-08"
  }
  expect_failures = [var.tls_policy]
}

run "redis_without_tls_is_refused" {
  command = plan
  variables {
    redis_url = "redis-cluster://redis.example.internal:6379"
  }
  expect_failures = [var.redis_url]
}

run "a_password_in_the_url_is_refused" {
  command = plan
  variables {
    redis_url = "rediss://fanfare:secret@redis.example.internal:6379"
  }
  expect_failures = [var.redis_url]
}

run "one_zone_is_refused" {
  command = plan
  variables {
    private_subnet_ids = ["subnet-a"]
    nodes_min          = 1
  }
  expect_failures = [var.private_subnet_ids, var.nodes_min]
}

run "latest_is_refused" {
  command = plan
  variables {
    image = "ghcr.io/fanfare/fanfare:latest"
  }
  expect_failures = [var.image]
}

run "a_plain_secret_is_refused" {
  command = plan
  variables {
    secrets = { api_keys = "key", hmac_secret = "0123456789012345678901234567890123456789" }
  }
  expect_failures = [var.secrets]
}

run "a_delay_shorter_than_the_drain_is_refused" {
  command = plan
  variables {
    deregistration_delay_s = 30
  }
  expect_failures = [var.deregistration_delay_s]
}
