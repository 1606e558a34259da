mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:111122223333:fanfare-alarms" }
  }
}

variables {
  ecs = {
    cluster_name            = "fanfare"
    service_name            = "fanfare"
    balancer_arn_suffix     = "app/fanfare/1"
    target_group_arn_suffix = "targetgroup/fanfare/1"
    metric_namespace        = "Fanfare"
    metric_service          = "fanfare"
    connections_max         = 1000
    nodes_min               = 3
  }
}

run "watches_what_nodes_tell" {
  assert {
    condition = toset([
      for alarm in aws_cloudwatch_metric_alarm.this : alarm.metric_name if alarm.namespace == "Fanfare" && alarm.dimensions == tomap({ service = "fanfare" })
    ]) == toset(["fanfare_queue_pressure", "fanfare_queue_oldest_seconds", "fanfare_sessions"])
    error_message = "Alarms must read the nodes' metrics by their names and their dimension: fanfare_queue_pressure, fanfare_queue_oldest_seconds and fanfare_sessions."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["sessions"].threshold == 950 && aws_cloudwatch_metric_alarm.this["targets_few"].threshold == 3
    error_message = "Limits must follow connections_max and nodes_min."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : contains(alarm.alarm_actions, output.alarm_topic_arn)])
    error_message = "Each alarm must tell somebody."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["silent"].treat_missing_data == "breaching"
    error_message = "Silence must be an alarm."
  }
}

run "the_dashboard_can_be_read" {
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets) == 4
    error_message = "The dashboard must have four panels."
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets[2].properties.metrics[0] == ["AWS/ApplicationELB", "HealthyHostCount", "LoadBalancer", "app/fanfare/1", "TargetGroup", "targetgroup/fanfare/1"]
    error_message = "The panel of nodes must name balancer and target group."
  }
}

run "rules_without_ecs" {
  variables {
    ecs              = null
    remote_write     = true
    alarm_emails     = ["oncall@example.com"]
    prometheus_rules = <<-E
      groups:
        - name: one
          rules:
            - alert: FanfareNodeDown
              expr: up == 0
    E
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.this) == 0 && length(aws_cloudwatch_dashboard.this) == 0
    error_message = "Without ECS nothing of it must be watched."
  }
  assert {
    condition     = yamldecode(aws_prometheus_rule_group_namespace.fanfare[0].data).groups[0].rules[0].alert == "FanfareNodeDown"
    error_message = "The rules must reach the workspace as they are."
  }
  assert {
    condition     = aws_sns_topic_subscription.email["oncall@example.com"].protocol == "email"
    error_message = "Addresses must be told."
  }
}

run "rules_over_nothing_are_refused" {
  command = plan
  variables {
    prometheus_rules = "groups: [{ name: one, rules: [{ alert: FanfareNodeDown, expr: up == 0 }] }]"
  }
  expect_failures = [var.prometheus_rules]
}

run "a_path_is_no_rules" {
  command = plan
  variables {
    remote_write     = true
    prometheus_rules = "helm/fanfare/files/rules.yaml"
  }
  expect_failures = [var.prometheus_rules]
}

run "no_address_is_refused" {
  command = plan
  variables {
    alarm_emails = ["oncall"]
  }
  expect_failures = [var.alarm_emails]
}
