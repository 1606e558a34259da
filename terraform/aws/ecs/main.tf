# The nodes: tasks on Fargate, one node each, in every zone.

resource "aws_cloudwatch_log_group" "nodes" {
  #checkov:skip=CKV_AWS_158:The key is the caller's choice (kms_key_arn); without it the service encrypts by its own
  name              = "/fanfare/${var.name}/nodes"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

locals {
  log_configuration = {
    logDriver = "awslogs"
    options = {
      "awslogs-group"         = aws_cloudwatch_log_group.nodes.name
      "awslogs-region"        = data.aws_region.current.region
      "awslogs-stream-prefix" = "node"
    }
  }

  # The node reads Redis' password from a file; ECS gives secrets as variables only.
  password_writer = {
    name                   = "redis-password"
    image                  = var.init_image
    essential              = false
    readonlyRootFilesystem = true
    command                = ["sh", "-c", "umask 022 && printf %s \"$REDIS_PASSWORD\" > ${local.password_file}"]
    secrets                = [{ name = "REDIS_PASSWORD", valueFrom = coalesce(var.redis_password, "none") }]
    mountPoints            = [{ sourceVolume = "redis", containerPath = dirname(local.password_file), readOnly = false }]
    logConfiguration       = local.log_configuration
  }

  node = {
    name                   = "fanfare"
    image                  = var.image
    essential              = true
    command                = ["serve"]
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    stopTimeout            = var.stop_timeout_s
    environment            = [for name in sort(keys(local.environment)) : { name = name, value = local.environment[name] }]
    secrets = concat([
      { name = "FANFARE_API__KEYS", valueFrom = var.secrets.api_keys },
      { name = "FANFARE_AUTH__HMAC_SECRET", valueFrom = var.secrets.hmac_secret },
    ], [for name, arn in var.secret_environment : { name = name, valueFrom = arn }])
    portMappings = [
      for name, port in local.port : { name = name, containerPort = port, hostPort = port, protocol = "tcp" }
    ]
    ulimits = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
    linuxParameters = {
      capabilities = { drop = ["ALL"] }
    }
    healthCheck = {
      command     = ["CMD", "fanfare", "health", "live"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 30
    }
    mountPoints      = local.has_password ? [{ sourceVolume = "redis", containerPath = dirname(local.password_file), readOnly = true }] : []
    dependsOn        = local.has_password ? [{ containerName = "redis-password", condition = "SUCCESS" }] : []
    logConfiguration = local.log_configuration
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions = jsonencode(concat(
    [local.node],
    [for container in [local.password_writer] : container if local.has_password],
  ))
  tags = local.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  dynamic "volume" {
    for_each = local.has_password ? ["redis"] : []

    content {
      name = volume.value
    }
  }
}

resource "aws_ecs_service" "this" {
  name                              = var.name
  cluster                           = aws_ecs_cluster.this.id
  task_definition                   = aws_ecs_task_definition.this.arn
  desired_count                     = var.nodes_min
  launch_type                       = "FARGATE"
  platform_version                  = "LATEST"
  enable_execute_command            = false
  health_check_grace_period_seconds = 60
  propagate_tags                    = "SERVICE"
  # All new tasks run before the first old one goes: sessions have somewhere to come back to.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  # Moving tasks between zones would end sessions for nothing; nodes even out by themselves.
  availability_zone_rebalancing = "DISABLED"
  tags                          = local.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = [aws_security_group.nodes.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.sessions.arn
    container_name   = "fanfare"
    container_port   = local.port.http
  }

  service_registries {
    registry_arn = aws_service_discovery_service.api.arn
  }

  lifecycle {
    # The number of nodes is the autoscaler's from the first day on.
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.https, aws_iam_role_policy.secrets]
}

# Backends reach the API by one name. DNS answers with up to eight healthy nodes, chosen anew each time:
# enough for calls, which any node answers, and not enough to scrape every node (output discovery).
resource "aws_service_discovery_private_dns_namespace" "this" {
  name        = "${var.name}.internal"
  description = "Nodes of ${var.name}"
  vpc         = var.vpc_id
  tags        = local.tags
}

resource "aws_service_discovery_service" "api" {
  name = "api"
  tags = local.tags

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}

resource "aws_security_group" "nodes" {
  name        = "${var.name}-nodes"
  description = "Nodes of ${var.name}: sessions from the balancer, API and metrics from those who are named"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-nodes" })
}

resource "aws_vpc_security_group_ingress_rule" "nodes_from_balancer" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "Sessions and health from the balancer"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.port.http
  to_port                      = local.port.http
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  for_each = var.api_client_security_group_ids

  security_group_id            = aws_security_group.nodes.id
  description                  = "API from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.port.api
  to_port                      = local.port.api
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each = var.metrics_client_security_group_ids

  security_group_id            = aws_security_group.nodes.id
  description                  = "Metrics from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.port.metrics
  to_port                      = local.port.metrics
  tags                         = local.tags
}

# Redis, the log, secrets, images and a collector, which may stand anywhere.
resource "aws_vpc_security_group_egress_rule" "nodes" {
  #checkov:skip=CKV_AWS_382:Redis, images, secrets and a collector of telemetry may stand anywhere
  security_group_id = aws_security_group.nodes.id
  description       = "What nodes call"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
  tags              = local.tags
}
