output "balancer_dns_name" {
  description = "Where clients connect. Let a name of yours, that the certificate has, point to it."
  value       = aws_lb.this.dns_name
}

output "balancer_zone_id" {
  description = "Hosted zone of the balancer, for an alias record."
  value       = aws_lb.this.zone_id
}

output "api_url" {
  description = "Where backends in the VPC reach the API. The name has the addresses of up to eight healthy nodes, chosen anew each time; any node answers."
  value       = "http://${aws_service_discovery_service.api.name}.${aws_service_discovery_private_dns_namespace.this.name}:${local.port.api}"
}

output "metrics_target" {
  description = "Name and port for Prometheus' dns_sd_configs (type A). DNS answers with eight nodes at most: with more, find them by discovery, or let nodes send metrics to a collector (OTEL_EXPORTER_OTLP_ENDPOINT)."
  value       = "${aws_service_discovery_service.api.name}.${aws_service_discovery_private_dns_namespace.this.name}:${local.port.metrics}"
}

output "discovery" {
  description = "Namespace and service in Cloud Map that have every node: aws servicediscovery discover-instances --max-results 1000."
  value = {
    namespace = aws_service_discovery_private_dns_namespace.this.name
    service   = aws_service_discovery_service.api.name
  }
}

output "nodes_security_group_id" {
  description = "Security group of the nodes: client_security_group_ids of the module redis."
  value       = aws_security_group.nodes.id
}

output "cluster_name" {
  description = "The cluster of ECS."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "The service of ECS."
  value       = aws_ecs_service.this.name
}

output "task_definition_arn" {
  description = "The task definition in force."
  value       = aws_ecs_task_definition.this.arn
}

output "metric_namespace" {
  description = "Namespace in CloudWatch of what nodes tell of themselves."
  value       = local.metric_namespace
}

output "metric_service" {
  description = "Dimension service of what nodes tell of themselves."
  value       = var.name
}

output "balancer_arn_suffix" {
  description = "The balancer as dimension of its metrics."
  value       = aws_lb.this.arn_suffix
}

output "target_group_arn_suffix" {
  description = "The target group as dimension of its metrics."
  value       = aws_lb_target_group.sessions.arn_suffix
}

output "connections_max" {
  description = "Most sessions of a node."
  value       = local.connections_max
}

output "stop_longest_s" {
  description = "Longest time from SIGTERM to exit of a node, in seconds."
  value       = local.stop_longest_s
}

output "queue_capacity" {
  description = "Entries that the queue holds in the whole cluster."
  value       = local.queue_capacity
}

output "drain_command" {
  description = "What to run while a new release rolls out, from inside the VPC and with FANFARE_API_KEY set."
  value       = "scripts/ecs-drain --cluster ${aws_ecs_cluster.this.name} --service ${aws_ecs_service.this.name} --stop-s ${local.stop_longest_s} --delay-s ${var.deregistration_delay_s}"
}
