# Everything: GKE for long sessions, Cloud Run beside it over the same Valkey for who prefers it, logins by
# IAM, the repository's alert rules as policies, and PostgreSQL where it is asked for.

locals {
  name   = "fanfare"
  labels = { environment = "production" }
}

module "network" {
  source = "../../gcp/network"

  name             = local.name
  project          = var.project
  region           = var.region
  private_services = var.postgres
  labels           = local.labels
}

module "redis" {
  source = "../../gcp/redis"

  name                         = local.name
  project                      = var.project
  region                       = var.region
  network_id                   = module.network.network_id
  service_connection_policy_id = module.network.memorystore_policy_id
  shards                       = 3
  replicas                     = 2
  iam_auth                     = true
  labels                       = local.labels

  client_members = {
    gke           = module.gke.nodes_service_account
    cloud_run     = module.cloud_run.nodes_service_account
    cloud_run_api = module.cloud_run.api_service_account
  }
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
  authorized_networks = var.authorized_networks
  domain              = var.domain
  redis_url           = module.redis.redis_url
  redis_iam_auth      = true
  size                = "large"
  labels              = local.labels
}

module "cloud_run" {
  source = "../../gcp/cloud-run"

  name           = local.name
  project        = var.project
  region         = var.region
  network_id     = module.network.network_id
  subnetwork_id  = module.network.subnetwork_id
  image          = var.image
  domain         = var.run_domain
  redis_url      = module.redis.redis_url
  redis_iam_auth = true
  redis_ca_pem   = module.redis.ca_pem
  secrets        = var.secrets
  labels         = local.labels
}

module "postgres" {
  source = "../../gcp/postgres"

  enabled                 = var.postgres
  name                    = local.name
  project                 = var.project
  region                  = var.region
  network_id              = module.network.network_id
  private_services_id     = module.network.private_services_id
  read_replicas           = 1
  client_service_accounts = var.backend_service_account == null ? {} : { backend = var.backend_service_account }
  labels                  = local.labels
}

module "observe" {
  source = "../../gcp/observe"

  name               = local.name
  project            = var.project
  alarm_emails       = var.alarm_emails
  prometheus_rules   = file("${path.module}/../../../helm/fanfare/files/rules.yaml")
  cloud_run_services = [module.cloud_run.gateway_name, module.cloud_run.api_name]
  redis_instance_id  = "${local.name}-redis"
  domain             = var.domain
  labels             = local.labels
}
