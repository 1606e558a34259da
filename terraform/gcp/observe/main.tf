# The alert rules of helm/fanfare/files/rules.yaml as policies of Cloud Monitoring, and what is seen of
# Cloud Run, Memorystore and the door from outside.

locals {
  labels = merge({ application = "fanfare", stack = var.name }, var.labels)

  channels = concat(
    var.notification_channels,
    [for channel in google_monitoring_notification_channel.email : channel.name],
  )

  rules = {
    for rule in flatten([
      for group in try(yamldecode(var.prometheus_rules).groups, []) : [
        for rule in group.rules : merge(rule, { group = group.name }) if can(rule.alert)
      ]
    ]) : rule.alert => rule
  }
  seconds  = { s = 1, m = 60, h = 3600, d = 86400 }
  severity = { critical = "CRITICAL", warning = "WARNING" }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alarm_emails)

  project      = var.project
  display_name = "${var.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
}

resource "google_monitoring_alert_policy" "rule" {
  for_each = local.rules

  project               = var.project
  display_name          = "${var.name}: ${each.key}"
  combiner              = "OR"
  severity              = try(local.severity[each.value.labels.severity], "WARNING")
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query               = each.value.expr
      duration            = "${try(tonumber(regex("^[0-9]+", each.value.for)) * local.seconds[regex("[a-z]$", each.value.for)], 0)}s"
      evaluation_interval = "30s"
      alert_rule          = each.key
      rule_group          = each.value.group
      # Nodes that have not told a metric yet are no reason to refuse the rule.
      disable_metric_validation = true
    }
  }

  documentation {
    mime_type = "text/markdown"
    subject   = try(each.value.annotations.summary, each.key)
    content   = "${try(each.value.annotations.summary, each.key)}. What to do: ${try(each.value.annotations.runbook_url, "docs/oncall.md")}"
  }
}

locals {
  watched = merge(
    {
      for service in var.cloud_run_services : "${service}-errors" => {
        text      = "Cloud Run answers with errors: instances do not start, or nodes turn handshakes away."
        filter    = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${service}\" AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class = \"5xx\""
        aligner   = "ALIGN_RATE"
        threshold = 1
      }
    },
    {
      for service in var.cloud_run_services : "${service}-instances" => {
        text      = "Nine tenths of the instances that are allowed run: raise nodes_max, or find out who comes."
        filter    = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${service}\" AND metric.type = \"run.googleapis.com/container/instance_count\""
        aligner   = "ALIGN_MAX"
        threshold = var.cloud_run_nodes_max * 0.9
      }
    },
    var.redis_instance_id == null ? {} : {
      redis-memory = {
        text      = "Memory of Valkey is over 80 %. When it is full every publication is refused (OOM): keep less history, or take a larger type or more shards."
        filter    = "resource.type = \"memorystore.googleapis.com/Instance\" AND resource.labels.instance_id = \"${var.redis_instance_id}\" AND metric.type = \"memorystore.googleapis.com/instance/memory/maximum_utilization\""
        aligner   = "ALIGN_MAX"
        threshold = 0.8
      }
    },
  )
}

resource "google_monitoring_alert_policy" "outside" {
  for_each = local.watched

  project               = var.project
  display_name          = "${var.name}: ${each.key}"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = each.key

    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = "300s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = each.value.aligner
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = each.value.text
  }
}

resource "google_monitoring_uptime_check_config" "door" {
  count = var.domain == null ? 0 : 1

  project      = var.project
  display_name = "${var.name}: the door"
  period       = "60s"
  timeout      = "10s"
  user_labels  = local.labels

  http_check {
    path         = "/health/ready"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }

  monitored_resource {
    type   = "uptime_url"
    labels = { project_id = var.project, host = var.domain }
  }
}

resource "google_monitoring_alert_policy" "door" {
  count = var.domain == null ? 0 : 1

  project               = var.project
  display_name          = "${var.name}: the door"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "fewer than half of the places get an answer"

    condition_threshold {
      filter          = "resource.type = \"uptime_url\" AND metric.type = \"monitoring.googleapis.com/uptime_check/check_passed\" AND metric.labels.check_id = \"${google_monitoring_uptime_check_config.door[0].uptime_check_id}\""
      comparison      = "COMPARISON_LT"
      threshold_value = 0.5
      duration        = "120s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_FRACTION_TRUE"
        cross_series_reducer = "REDUCE_MEAN"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "No node answers at the door: docs/oncall.md, FanfareNothingScraped."
  }
}
