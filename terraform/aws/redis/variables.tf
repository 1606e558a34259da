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
  description = "The VPC in which Valkey stands."
  type        = string

  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "vpc_id must be the id of a VPC, vpc-…. It is \"${var.vpc_id}\"."
  }
}

variable "subnet_ids" {
  description = "Private subnets, in two zones or more."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) >= 2
    error_message = "subnet_ids must be 2 or more subnets in different zones: with one, the loss of its zone is the loss of every node. There are ${length(var.subnet_ids)}."
  }
}

variable "client_security_group_ids" {
  description = "Security groups that may connect, by a name of your own: { nodes = \"sg-…\" }. The names must be known when it is planned, the ids need not."
  type        = map(string)

  validation {
    condition     = length(var.client_security_group_ids) > 0
    error_message = "client_security_group_ids must name at least one security group: otherwise nobody can connect."
  }
}

variable "node_type" {
  description = "Type of each Valkey node."
  type        = string
  default     = "cache.r7g.large"

  validation {
    condition     = startswith(var.node_type, "cache.")
    error_message = "node_type must be a type of ElastiCache, for example cache.r7g.large. It is \"${var.node_type}\"."
  }
}

variable "shards" {
  description = "Masters. Up to 8 go with redis.partitions = 256, up to 16 with 1024."
  type        = number
  default     = 2

  validation {
    condition     = var.shards >= 1 && var.shards <= 16 && floor(var.shards) == var.shards
    error_message = "shards must be a whole number from 1 to 16: more have no partitions of their own (redis.partitions). It is ${var.shards}."
  }
}

variable "replicas" {
  description = "Replicas of each master, in other zones. With one or more, the loss of a node or zone is a failover."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 1 && var.replicas <= 5 && floor(var.replicas) == var.replicas
    error_message = "replicas must be a whole number from 1 to 5: a master without a replica is lost with its zone. It is ${var.replicas}."
  }
}

variable "engine_version" {
  description = "Version of Valkey that ElastiCache has: 8.0, 8.1, 8.2, 9.0 or 9.1."
  type        = string
  default     = "8.0"

  validation {
    condition     = contains(["8.0", "8.1", "8.2", "9.0", "9.1"], var.engine_version)
    error_message = "engine_version must be 8.0, 8.1, 8.2, 9.0 or 9.1. It is \"${var.engine_version}\"."
  }
}

variable "key_prefix" {
  description = "redis.prefix of the nodes: the only keys that their user may touch."
  type        = string
  default     = "ff"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]{1,32}$", var.key_prefix))
    error_message = "key_prefix must be 1 to 32 characters of A-Z a-z 0-9 . _ -. It is \"${var.key_prefix}\"."
  }
}

variable "stream_node_max_bytes" {
  description = "stream-node-max-bytes: 512 for many short topics and inboxes, 1024 where there are long ones too."
  type        = number
  default     = 512

  validation {
    condition     = var.stream_node_max_bytes >= 128 && var.stream_node_max_bytes <= 4096
    error_message = "stream_node_max_bytes must be from 128 to 4096. It is ${var.stream_node_max_bytes}."
  }
}

variable "pubsub_buffer_bytes" {
  description = "Most that may wait in Valkey for one node that reads its feed slowly. Above it Valkey ends the connection, and the node reads from the streams what it missed."
  type        = number
  default     = 268435456

  validation {
    condition     = var.pubsub_buffer_bytes >= 33554432
    error_message = "pubsub_buffer_bytes must be 33554432 (32 MiB, what ElastiCache has itself) or more. It is ${var.pubsub_buffer_bytes}."
  }
}

variable "snapshot_retention_days" {
  description = "How many daily snapshots are kept. 0 makes none."
  type        = number
  default     = 7

  validation {
    condition     = var.snapshot_retention_days >= 0 && var.snapshot_retention_days <= 35
    error_message = "snapshot_retention_days must be from 0 to 35. It is ${var.snapshot_retention_days}."
  }
}

variable "final_snapshot" {
  description = "Whether a last snapshot, NAME-redis-final, is kept when Valkey is deleted. ElastiCache has no protection against being deleted."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "How long the slow log and the engine's log are kept, in days."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch Logs knows (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653). It is ${var.log_retention_days}."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that are told of alarms."
  type        = list(string)
  default     = []
}

variable "kms_key_arn" {
  description = "KMS key for data, snapshots, logs and the password. Without it the services encrypt by keys of their own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]+:(key|alias)/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key of KMS, arn:aws:kms:REGION:ACCOUNT:key/…. It is \"${coalesce(var.kms_key_arn, "null")}\"."
  }
}

variable "tags" {
  description = "Tags of everything in the module."
  type        = map(string)
  default     = {}
}
