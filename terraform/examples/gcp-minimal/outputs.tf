output "address" {
  description = "What the domain points to."
  value       = module.gke.address
}

output "certificate_record" {
  description = "The DNS record by which Google believes that the domain is yours."
  value       = module.gke.certificate_record
}

output "helm_values" {
  description = "Values for the chart, without secrets."
  value       = module.gke.helm_values
}

output "gateway_manifests" {
  description = "The Gateway and its policies."
  value       = module.gke.gateway_manifests
}

output "monitoring_manifests" {
  description = "What lets managed Prometheus scrape the nodes."
  value       = module.gke.monitoring_manifests
}

output "redis_ca_pem" {
  description = "The CA of Valkey, for redis.tls_ca_file of the nodes."
  value       = module.redis.ca_pem
}
