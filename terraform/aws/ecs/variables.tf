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
  description = "Image with a shell and printf, that writes Redis' password into a file before the node starts."
  type        = string
  default     = "busybox:1.37.0"
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
    condition     = var.memory >= 512 && var.memory <= 122880
    error_message = "memory must be from 512 to 122880 MiB. It is ${var.memory}."
  }
}

variable "connections_max" {
  description = "server.connections_max: most sessions of a node. Without it the value of size."
  type        = number
  default     = null

  validation {
    condition     = var.connections_max == null ? true : var.connections_max >= 1 && var.connections_max <= 65000
    error_message = "connections_max must be from 1 to 65000: Fargate gives a task 65535 open files, of which the node needs some 500 itself."
  }
}

variable "extra_environment" {
  description = "Further settings by the names of docs/configuration.md: { FANFARE_LOG__LEVEL = \"info\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.extra_environment) : can(regex("^(FANFARE|OTEL)_[A-Z0-9_]+$", name))])
    error_message = "extra_environment must have names that begin with FANFARE_ or OTEL_. It has ${jsonencode(keys(var.extra_environment))}."
  }
  validation {
    condition = length(setintersection(keys(var.extra_environment), [
      "FANFARE_AUTH__HMAC_SECRET", "FANFARE_API__KEYS", "FANFARE_REDIS__URL", "FANFARE_REDIS__PASSWORD_FILE",
      "FANFARE_SERVER__LISTEN", "FANFARE_API__LISTEN", "FANFARE_METRICS__LISTEN", "FANFARE_TELEMETRY__EMF_NAMESPACE",
      "FANFARE_TELEMETRY__SERVICE_NAME",
      "FANFARE_DRAIN__WINDOW_MS", "FANFARE_DRAIN__SESSIONS_PER_S", "FANFARE_DRAIN__DELAY_MS",
    ])) == 0
    error_message = "extra_environment must not set secrets (give their ARNs in secrets), Redis, ports, the names of metrics or the drain: each has a variable of its own."
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
    condition     = !can(regex("://[^/?]*:[^/?@]*@", var.redis_url))
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
}

# Stopping

variable "drain" {
  description = "How a node leaves, as [drain] of docs/configuration.md: over how long its sessions are told to go and closed, how many a second, how long it waits before."
  type = object({
    window_ms      = optional(number, 30000)
    sessions_per_s = optional(number, 1000)
    delay_ms       = optional(number, 0)
  })
  default = {}

  validation {
    condition     = var.drain.window_ms >= 0 && var.drain.sessions_per_s >= 1 && var.drain.delay_ms >= 0
    error_message = "drain must have window_ms and delay_ms of 0 or more, and sessions_per_s of 1 or more."
  }
}

variable "stop_timeout_s" {
  description = "How long ECS waits between SIGTERM and SIGKILL. 120 s is the most that Fargate allows."
  type        = number
  default     = 120

  validation {
    condition     = var.stop_timeout_s >= 2 && var.stop_timeout_s <= 120
    error_message = "stop_timeout_s must be from 2 to 120: Fargate kills after 120 s at the latest. It is ${var.stop_timeout_s}."
  }
  validation {
    condition     = local.stop_longest_s <= var.stop_timeout_s
    error_message = "A stop can take ${local.stop_longest_s} s (drain.delay_ms, half of drain.window_ms or connections_max / drain.sessions_per_s, a quarter of drain.window_ms, and ${local.stop_fixed_s} s), and stop_timeout_s is ${var.stop_timeout_s} (at most 120). Lower drain.window_ms or raise drain.sessions_per_s."
  }
}

# Scaling

variable "nodes_min" {
  description = "Fewest nodes, two or more, so that the loss of one zone is not the loss of all."
  type        = number
  default     = 3

  validation {
    condition     = var.nodes_min >= 2
    error_message = "nodes_min must be 2 or more: one task is one zone. It is ${var.nodes_min}."
  }
}

variable "nodes_max" {
  description = "Most nodes."
  type        = number
  default     = 30

  validation {
    condition     = var.nodes_max >= var.nodes_min
    error_message = "nodes_max must be at least nodes_min (${var.nodes_min}). It is ${var.nodes_max}."
  }
}

variable "queue_pressure_target" {
  description = "fanfare_queue_pressure of a node above which nodes are added."
  type        = number
  default     = 1000

  validation {
    condition     = var.queue_pressure_target > 0
    error_message = "queue_pressure_target must be above 0. It is ${var.queue_pressure_target}."
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
}

variable "tags" {
  description = "Tags of everything in the module."
  type        = map(string)
  default     = {}
}
