# The least that survives the loss of a zone: GKE over a Valkey with replicas. The chart is installed by
# Helm, with the output helm_values.

locals {
  name = "fanfare"
}

module "network" {
  source = "../../gcp/network"

  name    = local.name
  project = var.project
  region  = var.region
}

module "redis" {
  source = "../../gcp/redis"

  name                         = local.name
  project                      = var.project
  region                       = var.region
  network_id                   = module.network.network_id
  service_connection_policy_id = module.network.memorystore_policy_id
  node_type                    = "STANDARD_SMALL"
  shards                       = 1
  # The network alone decides who may connect. By IAM it takes a container beside each node that writes
  # tokens: docs/terraform.md.
  iam_auth = false
}

module "gke" {
  source = "../../gcp/gke"

  name                = local.name
  project             = var.project
  region              = var.region
  network_id          = module.network.network_id
  subnetwork_id       = module.network.subnetwork_id
  pods_range_name     = module.network.pods_range_name
  services_range_name = module.network.services_range_name
  domain              = var.domain
  redis_url           = module.redis.redis_url
}
