output "rule_policies" {
  description = "Names of the alert rules that became policies."
  value       = sort(keys(google_monitoring_alert_policy.rule))
}

output "notification_channels" {
  description = "Channels that are told of alerts."
  value       = local.channels
}

output "uptime_check_id" {
  description = "The check of the door, or null."
  value       = one(google_monitoring_uptime_check_config.door[*].uptime_check_id)
}
