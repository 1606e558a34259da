# Valkey in cluster mode, in several zones, by TLS alone, with a user who can do what Fanfare does and
# nothing else (docs/redis.md).

locals {
  tags = merge({ Application = "fanfare", Stack = var.name }, var.tags)
  port = 6379

  # The line of docs/redis.md but for CONFIG, which ElastiCache offers to nobody.
  access = join(" ", [
    "on", "~${var.key_prefix}:*", "~{${var.key_prefix}:*", "&${var.key_prefix}:*",
    "-@all", "+@read", "+@write", "+@pubsub", "+@connection", "-@dangerous",
    "+evalsha", "+script|load", "+time", "+wait", "+info", "+role",
    "+cluster|slots", "+cluster|nodes", "+cluster|info",
  ])

  user_name = "fanfare"
}

resource "aws_elasticache_subnet_group" "this" {
  name        = "${var.name}-redis"
  description = "Valkey of ${var.name}"
  subnet_ids  = var.subnet_ids
  tags        = local.tags
}

resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-redis-${split(".", var.engine_version)[0]}"
  family      = "valkey${split(".", var.engine_version)[0]}"
  description = "What Fanfare asks of Valkey: docs/redis.md"
  tags        = local.tags

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }
  # Evicting keys would lose messages without a word; refusing writes is told to whoever publishes.
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
  parameter {
    name  = "stream-node-max-bytes"
    value = tostring(var.stream_node_max_bytes)
  }
  parameter {
    name  = "client-output-buffer-limit-pubsub-hard-limit"
    value = tostring(var.pubsub_buffer_bytes)
  }
  parameter {
    name  = "client-output-buffer-limit-pubsub-soft-limit"
    value = tostring(floor(var.pubsub_buffer_bytes / 4))
  }
  parameter {
    name  = "client-output-buffer-limit-pubsub-soft-seconds"
    value = "60"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "redis" {
  name        = "${var.name}-redis"
  description = "Valkey of ${var.name}: its port, for the nodes"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-redis" })
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.redis.id
  description                  = "Valkey from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  tags                         = local.tags
}

# The password is made by Secrets Manager and handed to ElastiCache by CloudFormation, which Terraform
# only asks to do it: so it stands neither in the state nor in a plan.
resource "aws_cloudformation_stack" "user" {
  #checkov:skip=CKV_AWS_124:The stack is made and followed by Terraform, which tells of each failure itself
  name = "${var.name}-redis-user"
  tags = local.tags

  template_body = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Description              = "The user of Fanfare in Valkey, with a password that nobody has seen"
    Resources = {
      Password = {
        Type = "AWS::SecretsManager::Secret"
        Properties = merge({
          Name        = "${var.name}/redis"
          Description = "User and password of Fanfare in Valkey"
          GenerateSecretString = {
            SecretStringTemplate = jsonencode({ username = local.user_name })
            GenerateStringKey    = "password"
            PasswordLength       = 48
            ExcludePunctuation   = true
          }
        }, var.kms_key_arn == null ? {} : { KmsKeyId = var.kms_key_arn })
      }
      User = {
        Type = "AWS::ElastiCache::User"
        Properties = {
          UserId       = "${var.name}-nodes"
          UserName     = local.user_name
          Engine       = "valkey"
          AccessString = local.access
          AuthenticationMode = {
            Type = "password"
            Passwords = [
              { "Fn::Sub" = "{{resolve:secretsmanager:$${Password}:SecretString:password}}" },
            ]
          }
        }
      }
    }
    Outputs = {
      UserId    = { Value = { Ref = "User" } }
      SecretArn = { Value = { Ref = "Password" } }
    }
  })
}

resource "aws_elasticache_user_group" "this" {
  engine        = "valkey"
  user_group_id = "${var.name}-redis"
  user_ids      = [aws_cloudformation_stack.user.outputs["UserId"]]
  tags          = local.tags
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV_AWS_31:Users and passwords are RBAC's (user_group_ids), which excludes an AUTH token
  #checkov:skip=CKV_AWS_191:The key is the caller's choice (kms_key_arn); without it the service encrypts by its own
  replication_group_id = "${var.name}-redis"
  description          = "Valkey of ${var.name}"
  engine               = "valkey"
  engine_version       = var.engine_version
  node_type            = var.node_type
  port                 = local.port
  parameter_group_name = aws_elasticache_parameter_group.this.name
  subnet_group_name    = aws_elasticache_subnet_group.this.name
  security_group_ids   = [aws_security_group.redis.id]
  user_group_ids       = [aws_elasticache_user_group.this.id]

  cluster_mode               = "enabled"
  num_node_groups            = var.shards
  replicas_per_node_group    = var.replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn

  snapshot_retention_limit   = var.snapshot_retention_days
  final_snapshot_identifier  = var.final_snapshot ? "${var.name}-redis-final" : null
  snapshot_window            = "02:00-03:00"
  maintenance_window         = "sun:03:30-sun:04:30"
  auto_minor_version_upgrade = true
  # A change of type or version replaces masters one by one: in the window, not at once.
  apply_immediately = false
  tags              = local.tags

  dynamic "log_delivery_configuration" {
    for_each = aws_cloudwatch_log_group.redis

    content {
      destination      = log_delivery_configuration.value.name
      destination_type = "cloudwatch-logs"
      log_format       = "json"
      log_type         = log_delivery_configuration.key
    }
  }
}

resource "aws_cloudwatch_log_group" "redis" {
  #checkov:skip=CKV_AWS_158:The key is the caller's choice (kms_key_arn); without it the service encrypts by its own
  for_each = toset(["slow-log", "engine-log"])

  name              = "/fanfare/${var.name}/redis/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}
