output "balancer_dns_name" {
  description = "Where clients connect: let a name that the certificate has point to it."
  value       = module.ecs.balancer_dns_name
}

output "api_url" {
  description = "Where backends in the VPC reach the API."
  value       = module.ecs.api_url
}

output "ecs_drain" {
  description = "What to run while a new release rolls out."
  value       = module.ecs.drain_command
}

output "prometheus_endpoint" {
  description = "Where your Prometheus writes metrics (remote write), or null."
  value       = module.observe.prometheus_endpoint
}

output "helm_values" {
  description = "Values for the chart, without secrets."
  value       = module.eks.helm_values
}

output "postgres_endpoint" {
  description = "HOST:PORT of the database, or null."
  value       = module.postgres.endpoint
}
