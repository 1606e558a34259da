output "address" {
  description = "Private address of the primary, port 5432, or null where there is no database."
  value       = one(google_sql_database_instance.primary[*].private_ip_address)
}

output "replica_addresses" {
  description = "Private address of each read replica."
  value       = google_sql_database_instance.replica[*].private_ip_address
}

output "connection_name" {
  description = "Name for the Auth Proxy, or null."
  value       = one(google_sql_database_instance.primary[*].connection_name)
}
