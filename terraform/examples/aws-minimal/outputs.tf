output "balancer_dns_name" {
  description = "Where clients connect: let a name that the certificate has point to it."
  value       = module.ecs.balancer_dns_name
}

output "ecs_drain" {
  description = "What to run while a new release rolls out."
  value       = module.ecs.drain_command
}

output "api_url" {
  description = "Where backends in the VPC reach the API."
  value       = module.ecs.api_url
}
