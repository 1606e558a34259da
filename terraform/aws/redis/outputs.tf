output "redis_url" {
  description = "redis.url of the nodes, without user and password."
  value       = "rediss-cluster://${aws_elasticache_replication_group.this.configuration_endpoint_address}:${local.port}"
}

output "redis_user" {
  description = "redis.user of the nodes."
  value       = local.user_name
}

output "password_secret_arn" {
  description = "The secret in Secrets Manager that holds username and password."
  value       = aws_cloudformation_stack.user.outputs["SecretArn"]
}

output "password_value_from" {
  description = "The password alone, in the form that a task definition of ECS takes as valueFrom."
  value       = "${aws_cloudformation_stack.user.outputs["SecretArn"]}:password::"
}

output "security_group_id" {
  description = "The security group of Valkey."
  value       = aws_security_group.redis.id
}

output "replication_group_id" {
  description = "The replication group, for dashboards and alarms of your own."
  value       = aws_elasticache_replication_group.this.id
}
