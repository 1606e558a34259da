output "balancer_dns_name" {
  description = "Where clients connect: let a name that the certificate has point to it."
  value       = module.ecs.balancer_dns_name
}

output "api_url" {
  description = "Where backends in the VPC reach the API."
  value       = module.ecs.api_url
}
