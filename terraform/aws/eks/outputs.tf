output "cluster_name" {
  description = "The cluster: aws eks update-kubeconfig --name NAME."
  value       = aws_eks_cluster.this.name
}

output "endpoint" {
  description = "Address of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "machines_security_group_id" {
  description = "Security group of the machines: client_security_group_ids of the module redis."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "helm_values" {
  description = "Values for the chart, without secrets: terraform output -raw helm_values > values.yaml."
  value = yamlencode({
    size         = var.size
    environment  = "production"
    replicaCount = 3
    redis        = merge({ url = var.redis_url }, var.redis_user == null ? {} : { user = var.redis_user, existingSecret = "fanfare-redis" })
    auth         = { existingSecret = "fanfare-auth" }
    api          = { existingSecret = "fanfare-api" }
  })
}
