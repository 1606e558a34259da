mock_provider "google" {}

variables {
  project = "fanfare-test"
}

run "the_rules_of_the_repository" {
  variables {
    # The file that Helm ships, so that a rule that cannot become a policy is found here.
    prometheus_rules = file("../../../helm/fanfare/files/rules.yaml")
  }
  assert {
    condition     = length(output.rule_policies) >= 20 && contains(output.rule_policies, "FanfareNodeDown")
    error_message = "Each alert rule must become a policy."
  }
  assert {
    condition     = google_monitoring_alert_policy.rule["FanfareNodeDown"].conditions[0].condition_prometheus_query_language[0].duration == "120s" && google_monitoring_alert_policy.rule["FanfareProcessingSlow"].conditions[0].condition_prometheus_query_language[0].duration == "0s"
    error_message = "How long a rule waits must be told in seconds."
  }
  assert {
    condition     = google_monitoring_alert_policy.rule["FanfareNodeDown"].severity == "CRITICAL" && google_monitoring_alert_policy.rule["FanfareNodesLost"].severity == "WARNING"
    error_message = "Severities must be those of the rules."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.rule["FanfareNodeDown"].documentation[0].content, "docs/oncall.md#fanfarenodedown")
    error_message = "Each policy must say what to do."
  }
}

run "what_is_seen_from_outside" {
  variables {
    cloud_run_services  = ["fanfare", "fanfare-api"]
    cloud_run_nodes_max = 20
    redis_instance_id   = "fanfare-redis"
    domain              = "live.example.com"
    alarm_emails        = ["oncall@example.com"]
  }
  assert {
    condition     = length(google_monitoring_alert_policy.outside) == 5 && google_monitoring_alert_policy.outside["fanfare-instances"].conditions[0].condition_threshold[0].threshold_value == 18
    error_message = "Two services and Redis are five policies, and limits follow nodes_max."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.door[0].http_check[0].path == "/health/ready" && google_monitoring_uptime_check_config.door[0].http_check[0].use_ssl
    error_message = "The door must be asked by TLS whether it is ready."
  }
  assert {
    condition     = length(output.notification_channels) == 1 && alltrue([for policy in google_monitoring_alert_policy.outside : length(policy.notification_channels) == 1])
    error_message = "Each policy must tell somebody."
  }
}

run "nothing_asked_nothing_made" {
  assert {
    condition     = length(output.rule_policies) == 0 && length(google_monitoring_alert_policy.outside) == 0 && output.uptime_check_id == null
    error_message = "Without anything to watch there must be no policy."
  }
}

run "a_path_is_no_rules" {
  command = plan
  variables {
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
