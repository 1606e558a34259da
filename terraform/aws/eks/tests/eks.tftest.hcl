mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/made" }
  }
}

variables {
  subnet_ids      = ["subnet-a", "subnet-b"]
  admin_role_arns = ["arn:aws:iam::111122223333:role/platform"]
  redis_url       = "rediss-cluster://redis.example.internal:6379"
}

run "closed_to_the_outside_and_encrypted" {
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "Unless networks are named, the API server must be reached from inside the VPC alone."
  }
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == "arn:aws:kms:eu-central-1:111122223333:key/made"
    error_message = "Secrets of Kubernetes must be encrypted by the module's key."
  }
  assert {
    condition     = aws_eks_cluster.this.compute_config[0].enabled && aws_eks_cluster.this.kubernetes_network_config[0].elastic_load_balancing[0].enabled && aws_eks_cluster.this.storage_config[0].block_storage[0].enabled
    error_message = "EKS takes Auto Mode whole or not at all: compute, balancers and storage."
  }
}

run "metrics_server_is_there" {
  assert {
    condition     = aws_eks_addon.metrics_server.addon_name == "metrics-server"
    error_message = "Without metrics-server an autoscaler with CPU never scales down."
  }
  assert {
    condition     = yamldecode(output.helm_values).redis.url == var.redis_url && yamldecode(output.helm_values).replicaCount == 3
    error_message = "The values must have three nodes over the given Redis."
  }
  assert {
    condition     = !can(yamldecode(output.helm_values).redis.user) && yamldecode(output.helm_values).api.existingSecret == "fanfare-api"
    error_message = "Secrets must be named, and no user where there is none."
  }
}

run "own_key_and_networks" {
  variables {
    redis_user          = "fanfare"
    create_kms_key      = false
    kms_key_arn         = "arn:aws:kms:eu-central-1:111122223333:key/given"
    public_access_cidrs = ["203.0.113.0/24"]
  }
  assert {
    condition     = length(aws_kms_key.secrets) == 0 && aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == var.kms_key_arn
    error_message = "A given key must be used, and none made."
  }
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && contains(aws_eks_cluster.this.vpc_config[0].public_access_cidrs, "203.0.113.0/24")
    error_message = "The API server must be reached from the named network."
  }
  assert {
    condition     = yamldecode(output.helm_values).redis == { url = var.redis_url, user = "fanfare", existingSecret = "fanfare-redis" }
    error_message = "A user of Redis must have its Secret."
  }
}

run "one_subnet_is_refused" {
  command = plan
  variables {
    subnet_ids = ["subnet-a"]
  }
  expect_failures = [var.subnet_ids]
}

run "the_whole_internet_is_refused" {
  command = plan
  variables {
    public_access_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.public_access_cidrs]
}

run "an_old_kubernetes_is_refused" {
  command = plan
  variables {
    kubernetes_version = "1.29"
  }
  expect_failures = [var.kubernetes_version]
}

run "redis_without_tls_is_refused" {
  command = plan
  variables {
    redis_url = "redis://redis.example.internal:6379"
  }
  expect_failures = [var.redis_url]
}

run "no_key_is_refused" {
  command = plan
  variables {
    create_kms_key = false
  }
  expect_failures = [var.kms_key_arn]
}
