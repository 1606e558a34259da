# The least that survives the loss of a zone: three nodes on Fargate over a Valkey with replicas.

locals {
  name = "fanfare"
}

module "network" {
  source = "../../aws/network"

  name         = local.name
  zones        = var.zones
  nat_gateways = "single"
}

module "redis" {
  source = "../../aws/redis"

  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.private_subnet_ids
  client_security_group_ids = { nodes = module.ecs.nodes_security_group_id }
  shards                    = 1
}

module "ecs" {
  source = "../../aws/ecs"

  name               = local.name
  vpc_id             = module.network.vpc_id
  public_subnet_ids  = module.network.public_subnet_ids
  private_subnet_ids = module.network.private_subnet_ids

  image           = var.image
  certificate_arn = var.certificate_arn
  secrets         = var.secrets
  redis_url       = module.redis.redis_url
  redis_user      = module.redis.redis_user
  redis_password  = module.redis.password_value_from
}
