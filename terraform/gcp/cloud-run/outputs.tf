output "address" {
  description = "Public address of the balancer: what the domain points to."
  value       = google_compute_global_address.this.address
}

output "api_url" {
  description = "Where backends in the network reach the API."
  value       = google_cloud_run_v2_service.this["api"].uri
}

output "gateway_name" {
  description = "The service to which clients connect."
  value       = google_cloud_run_v2_service.this["gateway"].name
}

output "api_name" {
  description = "The service for backends."
  value       = google_cloud_run_v2_service.this["api"].name
}

output "nodes_service_account" {
  description = "The nodes' identity: client_members of the module redis."
  value       = google_service_account.nodes.member
}

output "api_service_account" {
  description = "The identity of the nodes for the API: client_members of the module redis."
  value       = google_service_account.api.member
}
