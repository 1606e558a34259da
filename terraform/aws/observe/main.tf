# What is seen from outside of the nodes, and a home for the alert rules and dashboards that read the
# nodes' own metrics (docs/monitoring.md, docs/oncall.md).

data "aws_region" "current" {}

locals {
  tags = merge({ Application = "fanfare", Stack = var.name }, var.tags)

  own      = var.ecs == null ? {} : { service = var.ecs.metric_service }
  balancer = var.ecs == null ? {} : { LoadBalancer = var.ecs.balancer_arn_suffix }
  target = var.ecs == null ? {} : {
    LoadBalancer = var.ecs.balancer_arn_suffix
    TargetGroup  = var.ecs.target_group_arn_suffix
  }
  service = var.ecs == null ? {} : {
    ClusterName = var.ecs.cluster_name
    ServiceName = var.ecs.service_name
  }

  alarms = var.ecs == null ? {} : {
    targets_few = {
      namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.target
      statistic = "Minimum", comparison = "LessThanThreshold", threshold = var.ecs.nodes_min, minutes = 5, missing = "breaching"
      text      = "Fewer nodes are healthy than there must be at least: docs/oncall.md, FanfareNodeDown."
    }
    balancer_errors = {
      namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer
      statistic = "Sum", comparison = "GreaterThanThreshold", threshold = 50, minutes = 5, missing = "notBreaching"
      text      = "The balancer itself answers with errors: it finds no node, or nodes end connections."
    }
    node_errors = {
      namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.target
      statistic = "Sum", comparison = "GreaterThanThreshold", threshold = 100, minutes = 5, missing = "notBreaching"
      text      = "Nodes turn handshakes away: docs/oncall.md, FanfareConnectionsRefused."
    }
    queue_pressure = {
      namespace = var.ecs.metric_namespace, metric = "fanfare_queue_pressure", dimensions = local.own
      statistic = "Average", comparison = "GreaterThanThreshold", threshold = var.queue_pressure_limit, minutes = 10, missing = "notBreaching"
      text      = "The queue grows although nodes are added: docs/oncall.md."
    }
    sessions = {
      namespace = var.ecs.metric_namespace, metric = "fanfare_sessions", dimensions = local.own
      statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = var.ecs.connections_max * 0.95, minutes = 5, missing = "notBreaching"
      text      = "A node has more than 95 % of the sessions that it lets in."
    }
    queue_old = {
      namespace = var.ecs.metric_namespace, metric = "fanfare_queue_oldest_seconds", dimensions = local.own
      statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 60, minutes = 5, missing = "notBreaching"
      text      = "The oldest entry of the queue has waited for more than a minute: docs/oncall.md."
    }
    silent = {
      namespace = var.ecs.metric_namespace, metric = "fanfare_sessions", dimensions = local.own
      statistic = "SampleCount", comparison = "LessThanThreshold", threshold = 1, minutes = 5, missing = "breaching"
      text      = "No node has told anything for five minutes, so nothing scales."
    }
    memory = {
      namespace = "AWS/ECS", metric = "MemoryUtilization", dimensions = local.service
      statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 90, minutes = 5, missing = "notBreaching"
      text      = "A node is near its limit of memory, and lets nobody in above nine tenths of it."
    }
  }
}

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:The key is the caller's choice (kms_key_arn): CloudWatch cannot use the service's own key
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
  tags              = local.tags
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  count = var.ecs == null ? 0 : 1

  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = 12 * (index % 2)
      y      = 6 * floor(index / 2)
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = data.aws_region.current.region
        period  = 60
        stat    = widget.stat
        metrics = widget.metrics
      }
    }]
  })
}

locals {
  widgets = var.ecs == null ? [] : [
    { title = "Sessions of all nodes", stat = "Sum", metrics = [[var.ecs.metric_namespace, "fanfare_sessions", "service", var.ecs.metric_service]] },
    { title = "Queue pressure of a node", stat = "Average", metrics = [[var.ecs.metric_namespace, "fanfare_queue_pressure", "service", var.ecs.metric_service]] },
    {
      title   = "Nodes", stat = "Minimum"
      metrics = [concat(["AWS/ApplicationELB", "HealthyHostCount"], flatten([for name, value in local.target : [name, value]]))]
    },
    {
      title   = "CPU and memory, percent", stat = "Maximum"
      metrics = [for name in ["CPUUtilization", "MemoryUtilization"] : concat(["AWS/ECS", name], flatten([for key, value in local.service : [key, value]]))]
    },
  ]
}

resource "aws_prometheus_workspace" "this" {
  #checkov:skip=CKV_AWS_238:The log of queries is not needed to watch nodes
  count = var.prometheus_rules == null ? 0 : 1

  alias       = var.name
  kms_key_arn = var.kms_key_arn
  tags        = local.tags
}

resource "aws_prometheus_rule_group_namespace" "fanfare" {
  count = var.prometheus_rules == null ? 0 : 1

  name         = "fanfare"
  workspace_id = aws_prometheus_workspace.this[0].id
  data         = var.prometheus_rules
  tags         = local.tags
}

# The workspace's own Alertmanager tells the same topic.
resource "aws_prometheus_alert_manager_definition" "this" {
  count = var.prometheus_rules == null ? 0 : 1

  workspace_id = aws_prometheus_workspace.this[0].id
  definition = yamlencode({
    alertmanager_config = yamlencode({
      route = { receiver = "alarms", group_by = ["alertname", "namespace", "job"] }
      receivers = [{
        name        = "alarms"
        sns_configs = [{ topic_arn = aws_sns_topic.alarms.arn, sigv4 = { region = data.aws_region.current.region } }]
      }]
    })
  })
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sns:Publish", "sns:GetTopicAttributes"]
      Resource  = aws_sns_topic.alarms.arn
      Principal = { Service = ["cloudwatch.amazonaws.com", "aps.amazonaws.com"] }
      Condition = { StringEquals = { "AWS:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

data "aws_caller_identity" "current" {}
