output "address" {
  description = "What the domain points to."
  value       = module.gke.address
}

output "run_address" {
  description = "What the domain of Cloud Run points to."
  value       = module.cloud_run.address
}

output "api_url" {
  description = "Where backends in the network reach the API of Cloud Run."
  value       = module.cloud_run.api_url
}

output "helm_values" {
  description = "Values for the chart, without secrets."
  value       = module.gke.helm_values
}

output "postgres_address" {
  description = "Private address of the database, or null."
  value       = module.postgres.address
}
