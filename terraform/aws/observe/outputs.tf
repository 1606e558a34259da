output "alarm_topic_arn" {
  description = "Topic that alarms go to: alarm_topic_arns of the module redis."
  value       = aws_sns_topic.alarms.arn
}

output "prometheus_endpoint" {
  description = "Where a Prometheus or a collector in the VPC writes metrics (remote write), or null."
  value       = one(aws_prometheus_workspace.this[*].prometheus_endpoint)
}
