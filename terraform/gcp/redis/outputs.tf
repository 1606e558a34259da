output "redis_url" {
  description = "redis.url of the nodes."
  value       = "rediss-cluster://${local.endpoint}:${local.port}"
}

output "redis_user" {
  description = "redis.user of the nodes where they log in by IAM, or null."
  value       = var.iam_auth ? "default" : null
}

output "ca_pem" {
  description = "The CA that signs Valkey's certificates, for redis.tls_ca_file: Memorystore has one of its own for each instance."
  value       = join("\n", flatten(google_memorystore_instance.this.managed_server_ca[*].ca_certs[*].certificates))
}

output "instance_name" {
  description = "Full name of the instance, for dashboards and alerts of your own."
  value       = google_memorystore_instance.this.name
}
