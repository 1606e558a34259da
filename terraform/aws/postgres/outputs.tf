output "endpoint" {
  description = "HOST:PORT of the primary, or null where there is no database."
  value       = one(aws_db_instance.primary[*].endpoint)
}

output "replica_endpoints" {
  description = "HOST:PORT of each read replica."
  value       = aws_db_instance.replica[*].endpoint
}

output "password_secret_arn" {
  description = "The secret in Secrets Manager that RDS made for the user fanfare, or null."
  value       = try(aws_db_instance.primary[0].master_user_secret[0].secret_arn, null)
}

output "security_group_id" {
  description = "The security group of the database, or null."
  value       = one(aws_security_group.postgres[*].id)
}
