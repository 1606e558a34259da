# Everything: three zones, a larger Valkey, nodes on Fargate with WAF and access logs, a cluster of
# Kubernetes beside it for who prefers the chart, alarms, the repository's alert rules, and PostgreSQL
# where it is asked for.

locals {
  name = "fanfare"
  tags = { Environment = "production" }
}

module "network" {
  source = "../../aws/network"

  name          = local.name
  zones         = var.zones
  nat_gateways  = "zone"
  vpc_endpoints = true
  kms_key_arn   = aws_kms_key.this.arn
  tags          = local.tags
}

module "redis" {
  source = "../../aws/redis"

  name       = local.name
  vpc_id     = module.network.vpc_id
  subnet_ids = module.network.private_subnet_ids
  client_security_group_ids = {
    ecs = module.ecs.nodes_security_group_id
    eks = module.eks.machines_security_group_id
  }
  shards           = 3
  replicas         = 2
  alarm_topic_arns = [module.observe.alarm_topic_arn]
  kms_key_arn      = aws_kms_key.this.arn
  tags             = local.tags
}

module "ecs" {
  source = "../../aws/ecs"

  name               = local.name
  vpc_id             = module.network.vpc_id
  public_subnet_ids  = module.network.public_subnet_ids
  private_subnet_ids = module.network.private_subnet_ids

  image             = var.image
  architecture      = "ARM64"
  size              = "large"
  cpu               = 4096
  memory            = 8192
  certificate_arn   = var.certificate_arn
  access_log_bucket = var.access_log_bucket
  web_acl_arn       = var.web_acl_arn
  secrets           = var.secrets
  kms_key_arn       = aws_kms_key.this.arn
  redis_url         = module.redis.redis_url
  redis_user        = module.redis.redis_user
  redis_password    = module.redis.password_value_from

  # The longest stop of 5,000 sessions, in order, and time for scripts/ecs-drain to go node by node.
  deregistration_delay_s            = 900
  api_client_security_group_ids     = { backends = aws_security_group.backends.id }
  metrics_client_security_group_ids = { backends = aws_security_group.backends.id }
  tags                              = local.tags
}

module "eks" {
  source = "../../aws/eks"

  name            = "${local.name}-k8s"
  subnet_ids      = module.network.private_subnet_ids
  admin_role_arns = var.admin_role_arns
  redis_url       = module.redis.redis_url
  redis_user      = module.redis.redis_user
  size            = "large"
  create_kms_key  = false
  kms_key_arn     = aws_kms_key.this.arn
  tags            = local.tags
}

module "postgres" {
  source = "../../aws/postgres"

  enabled                   = var.postgres
  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.private_subnet_ids
  client_security_group_ids = { backends = aws_security_group.backends.id }
  read_replicas             = 1
  kms_key_arn               = aws_kms_key.this.arn
  tags                      = local.tags
}

module "observe" {
  source = "../../aws/observe"

  name             = local.name
  alarm_emails     = var.alarm_emails
  prometheus_rules = var.remote_write ? file("${path.module}/../../../helm/fanfare/files/rules.yaml") : null
  remote_write     = var.remote_write
  kms_key_arn      = aws_kms_key.this.arn
  tags             = local.tags

  ecs = {
    cluster_name            = module.ecs.cluster_name
    service_name            = module.ecs.service_name
    balancer_arn_suffix     = module.ecs.balancer_arn_suffix
    target_group_arn_suffix = module.ecs.target_group_arn_suffix
    metric_namespace        = module.ecs.metric_namespace
    metric_service          = module.ecs.metric_service
    connections_max         = module.ecs.connections_max
    nodes_min               = 3
  }
}

# Your backends and your Prometheus are in this group.
resource "aws_security_group" "backends" {
  #checkov:skip=CKV2_AWS_5:What is put into this group is outside of the example
  name        = "${local.name}-backends"
  description = "Who may call the API of ${local.name} and scrape its metrics"
  vpc_id      = module.network.vpc_id
  tags        = local.tags
}
