variable "name" {
  description = "Name of the stack: first part of the name of everything in it."
  type        = string
  default     = "fanfare"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 characters of a-z, 0-9 and -, begin with a letter and not end with -. It is \"${var.name}\"."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string

  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "vpc_id must be the id of a VPC, vpc-…. It is \"${var.vpc_id}\"."
  }
}

variable "public_subnet_ids" {
  description = "Subnets of the balancer, in two zones or more."
  type        = list(string)

  validation {
    condition     = length(distinct(var.public_subnet_ids)) >= 2
    error_message = "public_subnet_ids must be 2 or more subnets in different zones: the balancer does not start in one. There are ${length(var.public_subnet_ids)}."
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the nodes, in two zones or more."
  type        = list(string)

  validation {
    condition     = length(distinct(var.private_subnet_ids)) >= 2
    error_message = "private_subnet_ids must be 2 or more subnets in different zones: with one, the loss of its zone is the loss of every node. There are ${length(var.private_subnet_ids)}."
  }
}

# The node

variable "image" {
  description = "Image of Fanfare, with a tag or a digest. The tag latest is refused: nobody could say what runs, or go back."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must end with a tag other than latest, or with @sha256: and 64 digits. It is \"${var.image}\"."
  }
}

variable "init_image" {
  description = "Image with a shell and printf, that writes Redis' password into a file before the node starts. Every task pulls it, so it does not come from Docker Hub, which limits pulls. Where nothing outside is reached (nat_gateways \"none\"), give one in a registry of yours."
  type        = string
  default     = "public.ecr.aws/docker/library/busybox:1.37.0"

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.init_image)) && !endswith(var.init_image, ":latest")
    error_message = "init_image must end with a tag other than latest, or with @sha256: and 64 digits. It is \"${var.init_image}\"."
  }
}

variable "architecture" {
  description = "X86_64 or ARM64, as the image."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture must be X86_64 or ARM64. It is \"${var.architecture}\"."
  }
}

variable "size" {
  description = "FANFARE_SIZE: small, medium, large or enterprise."
  type        = string
  default     = "medium"

  validation {
    condition     = contains(["small", "medium", "large", "enterprise"], var.size)
    error_message = "size must be small, medium, large or enterprise. It is \"${var.size}\"."
  }
}

variable "environment" {
  description = "FANFARE_ENV: development, staging or production."
  type        = string
  default     = "production"

  validation {
    condition     = contains(["development", "staging", "production"], var.environment)
    error_message = "environment must be development, staging or production. It is \"${var.environment}\"."
  }
}

variable "cpu" {
  description = "CPU of a task, 1024 a core."
  type        = number
  default     = 1024

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "cpu must be 256, 512, 1024, 2048, 4096, 8192 or 16384. It is ${var.cpu}."
  }
}

variable "memory" {
  description = "Memory of a task, in MiB."
  type        = number
  default     = 2048

  validation {
    condition     = contains(local.memories, var.memory)
    error_message = "memory must be one of ${join(", ", local.memories)} MiB, which Fargate has for cpu ${var.cpu}. It is ${var.memory}."
  }
  validation {
    condition     = var.memory >= local.memory_min[var.size]
    error_message = "memory must be at least ${local.memory_min[var.size]} MiB for the size ${var.size}. It is ${var.memory}."
  }
}

variable "connections_max" {
  description = "server.connections_max: most sessions of a node. Without it the value of size."
  type        = number
  default     = null

  validation {
    condition     = var.connections_max == null ? true : var.connections_max >= 1 && var.connections_max <= 65000 && floor(var.connections_max) == var.connections_max
    error_message = "connections_max must be a whole number from 1 to 65000: Fargate gives a task 65535 open files, of which the node needs some 500 itself."
  }
}

variable "extra_environment" {
  description = "Further settings by the names of docs/configuration.md, without secrets: { FANFARE_LOG__LEVEL = \"info\" }. What the module sets itself is refused, and so is whatever the longest stop rests on: each has a variable of its own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.extra_environment) : can(regex("^(FANFARE|OTEL)_[A-Z0-9_]+$", name))])
    error_message = "extra_environment must have names that begin with FANFARE_ or OTEL_. It has ${jsonencode(keys(var.extra_environment))}."
  }
  validation {
    condition     = length(setintersection(keys(var.extra_environment), local.own_names)) == 0
    error_message = "extra_environment must not set ${join(", ", setintersection(keys(var.extra_environment), local.own_names))}: the module sets it by a variable of its own, or it must differ from node to node."
  }
  validation {
    condition     = length([for name in keys(var.extra_environment) : name if contains(local.secret_names, name) || endswith(name, "_HEADERS")]) == 0
    error_message = "extra_environment must not set ${join(", ", [for name in keys(var.extra_environment) : name if contains(local.secret_names, name) || endswith(name, "_HEADERS")])}: a secret would stand in the task definition and in the state. Give its ARN in secrets or secret_environment."
  }
  validation {
    condition     = alltrue([for value in values(var.extra_environment) : !can(regex("://[^/?,]*@", value))])
    error_message = "extra_environment must have no URL with a login: ${join(", ", [for name, value in var.extra_environment : name if can(regex("://[^/?,]*@", value))])} would stand in the task definition and in the state. Give its ARN in secret_environment."
  }
  validation {
    condition     = !can(regex("(^|,) *(redis|valkey)(-cluster|-sentinel)?://", lookup(var.extra_environment, "FANFARE_REDIS__SHARDS", "")))
    error_message = "extra_environment must ask for TLS in FANFARE_REDIS__SHARDS, as redis_url does: rediss://, rediss-cluster:// or rediss-sentinel://."
  }
}

variable "secret_environment" {
  description = "Further settings that are secret: the ARN for each name, as { FANFARE_TELEMETRY__HEADERS = \"arn:…\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secret_environment) : can(regex("^(FANFARE|OTEL)_[A-Z0-9_]+$", name)) && !contains(local.own_names, name) && !contains(local.secret_names, name)])
    error_message = "secret_environment must have names that begin with FANFARE_ or OTEL_ and have no variable of their own. It has ${jsonencode(keys(var.secret_environment))}."
  }
  validation {
    condition     = alltrue([for arn in values(var.secret_environment) : can(regex("^arn:[a-z-]+:(secretsmanager|ssm):", arn))])
    error_message = "secret_environment must have ARNs of secrets in Secrets Manager or of parameters, not the values themselves."
  }
}

# Redis and secrets

variable "redis_url" {
  description = "redis.url, with TLS and without a password: rediss://HOST:6379, or rediss-cluster://HOST:6379."
  type        = string

  validation {
    condition     = can(regex("^(rediss|valkeys)(-cluster|-sentinel)?://", var.redis_url))
    error_message = "redis_url must ask for TLS: rediss://, rediss-cluster:// or rediss-sentinel://. What is before :// is \"${split("://", var.redis_url)[0]}\"."
  }
  validation {
    condition     = !can(regex("^[a-z]+-sentinel:", var.redis_url)) || can(regex("[?&]master=[^&]", var.redis_url))
    error_message = "redis_url of sentinels must name the master: rediss-sentinel://HOST:26379?master=NAME."
  }
  validation {
    condition     = !can(regex("://[^/?]*:[^/?@]*@", var.redis_url)) && !can(regex("[?&]sentinel=[^&]*:", var.redis_url))
    error_message = "redis_url must not have a password: it would stand in the task definition. Give the secret that holds it in redis_password."
  }
}

variable "redis_user" {
  description = "redis.user. Needs redis_password."
  type        = string
  default     = null

  validation {
    condition     = var.redis_user == null || var.redis_password != null
    error_message = "redis_user needs redis_password."
  }
}

variable "redis_password" {
  description = "Where the password of Redis is, as valueFrom of a task definition: the ARN of a secret, or ARN:FIELD:: for one field of it."
  type        = string
  default     = null

  validation {
    condition     = var.redis_password == null ? true : can(regex("^arn:[a-z-]+:(secretsmanager|ssm):", var.redis_password))
    error_message = "redis_password must be the ARN of a secret in Secrets Manager or of a parameter, not the password itself."
  }
}

variable "secrets" {
  description = "ARNs of the secrets with api.keys (separated by commas) and auth.hmac_secret (32 bytes or more). You make them, so that no state has their values."
  type = object({
    api_keys    = string
    hmac_secret = string
  })

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:[a-z-]+:(secretsmanager|ssm):", arn))])
    error_message = "secrets must be ARNs of secrets in Secrets Manager or of parameters, not the values themselves."
  }
}

variable "kms_key_arn" {
  description = "KMS key of the secrets and of the log. Without it the services encrypt by keys of their own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]+:(key|alias)/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key of KMS, arn:aws:kms:REGION:ACCOUNT:key/…. It is \"${coalesce(var.kms_key_arn, "null")}\"."
  }
}

# Scaling

variable "nodes_min" {
  description = "Fewest nodes, two or more, so that the loss of one zone is not the loss of all."
  type        = number
  default     = 3

  validation {
    condition     = var.nodes_min >= 2 && floor(var.nodes_min) == var.nodes_min
    error_message = "nodes_min must be a whole number, 2 or more: one task is one zone. It is ${var.nodes_min}."
  }
}

variable "nodes_max" {
  description = "Most nodes."
  type        = number
  default     = 30

  validation {
    condition     = var.nodes_max >= var.nodes_min && floor(var.nodes_max) == var.nodes_max
    error_message = "nodes_max must be a whole number, at least nodes_min (${var.nodes_min}). It is ${var.nodes_max}."
  }
}

variable "queue_pressure_target" {
  description = "fanfare_queue_pressure of a node above which nodes are added. The queue must hold as much for nodes_max nodes: queue_capacity."
  type        = number
  default     = 1000

  validation {
    condition     = var.queue_pressure_target > 0
    error_message = "queue_pressure_target must be above 0. It is ${var.queue_pressure_target}."
  }
}

variable "queue_capacity" {
  description = "queue.capacity: entries of the queue in the whole cluster. Without it the value of size, or more where queue_pressure_target for each of nodes_max nodes asks for it. Entries of priority low are refused from 70 % of it on, so those 70 % must be that much: with less the queue could never ask for nodes_max nodes."
  type        = number
  default     = null

  validation {
    condition     = var.queue_capacity == null ? local.queue_capacity_min <= 100000000 : var.queue_capacity >= local.queue_capacity_min && var.queue_capacity <= 100000000 && floor(var.queue_capacity) == var.queue_capacity
    error_message = "queue_capacity must be a whole number from ${local.queue_capacity_min} (queue_pressure_target ${var.queue_pressure_target} for each of ${var.nodes_max} nodes is 70 % of it, from which on priority low is refused) to 100000000. Raise it, or lower nodes_max or queue_pressure_target."
  }
}

variable "sessions_target_percent" {
  description = "How many percent of connections_max a node may have on average before nodes are added."
  type        = number
  default     = 80

  validation {
    condition     = var.sessions_target_percent >= 10 && var.sessions_target_percent <= 95
    error_message = "sessions_target_percent must be from 10 to 95. It is ${var.sessions_target_percent}."
  }
}

variable "cpu_target_percent" {
  description = "CPU of the nodes on average above which nodes are added."
  type        = number
  default     = 70

  validation {
    condition     = var.cpu_target_percent >= 10 && var.cpu_target_percent <= 95
    error_message = "cpu_target_percent must be from 10 to 95. It is ${var.cpu_target_percent}."
  }
}

variable "memory_target_percent" {
  description = "Memory of the nodes on average above which nodes are added."
  type        = number
  default     = 80

  validation {
    condition     = var.memory_target_percent >= 10 && var.memory_target_percent <= 95
    error_message = "memory_target_percent must be from 10 to 95. It is ${var.memory_target_percent}."
  }
}

variable "log_retention_days" {
  description = "How long the nodes' log is kept, in days."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch Logs knows (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653). It is ${var.log_retention_days}."
  }
}

variable "tags" {
  description = "Tags of everything in the module."
  type        = map(string)
  default     = {}
}
