output "network_id" {
  description = "The network."
  value       = google_compute_network.this.id
}

output "subnetwork_id" {
  description = "The subnetwork."
  value       = google_compute_subnetwork.this.id
}

output "pods_range_name" {
  description = "Name of the range of pods."
  value       = google_compute_subnetwork.this.secondary_ip_range[0].range_name
}

output "services_range_name" {
  description = "Name of the range of services of Kubernetes."
  value       = google_compute_subnetwork.this.secondary_ip_range[1].range_name
}

output "memorystore_policy_id" {
  description = "The policy by which Memorystore comes into the network: service_connection_policy_id of the module redis."
  value       = google_network_connectivity_service_connection_policy.memorystore.id
}

output "private_services_id" {
  description = "The connection for Cloud SQL: private_services_id of the module postgres, or null."
  value       = one(google_service_networking_connection.this[*].id)
}
