# What is seen of Valkey from outside. What it means for messages is told by the nodes' own metrics.

locals {
  members = toset([
    for pair in setproduct(range(1, var.shards + 1), range(1, var.replicas + 2)) :
    format("%s-redis-%04d-%03d", var.name, pair[0], pair[1])
  ])

  alarms = {
    memory = {
      metric      = "DatabaseMemoryUsagePercentage"
      threshold   = 80
      minutes     = 5
      description = "Memory of Valkey is over 80 %. When it is full every publication is refused (OOM): keep less history, or take a larger type or more shards."
    }
    cpu = {
      metric      = "EngineCPUUtilization"
      threshold   = 70
      minutes     = 5
      description = "The engine's thread is over 70 %: add shards."
    }
    evictions = {
      metric      = "Evictions"
      threshold   = 0
      minutes     = 1
      description = "Keys were evicted, so messages were lost: maxmemory-policy is not noeviction."
    }
    lag = {
      metric      = "ReplicationLag"
      threshold   = 5
      minutes     = 5
      description = "A replica is more than 5 s behind. A failover now would lose as much."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "redis" {
  for_each = {
    for pair in setproduct(local.members, keys(local.alarms)) :
    "${pair[0]}-${pair[1]}" => { member = pair[0], alarm = local.alarms[pair[1]] }
  }

  alarm_name          = "${each.key}-high"
  alarm_description   = each.value.alarm.description
  namespace           = "AWS/ElastiCache"
  metric_name         = each.value.alarm.metric
  dimensions          = { CacheClusterId = each.value.member }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.alarm.threshold
  period              = 60
  evaluation_periods  = each.value.alarm.minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = local.tags
}
