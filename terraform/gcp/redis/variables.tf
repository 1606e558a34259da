variable "name" {
  description = "Name of the stack: first part of the name of everything in it."
  type        = string
  default     = "fanfare"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 characters of a-z, 0-9 and -, begin with a letter and not end with -. It is \"${var.name}\"."
  }
}

variable "project" {
  description = "Project in which everything stands."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project must be the id of a project: 6 to 30 characters of a-z, 0-9 and -. It is \"${var.project}\"."
  }
}

variable "region" {
  description = "Region, for example europe-west3. Everything in it is spread over its zones."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region, for example europe-west3, and not one zone of it: with one zone, its loss is the loss of the service. It is \"${var.region}\"."
  }
}

variable "network_id" {
  description = "Network in which Valkey has its endpoints."
  type        = string
}

variable "service_connection_policy_id" {
  description = "The policy by which Memorystore comes into the network (output memorystore_policy_id of the module network): Valkey is made after it."
  type        = string
}

variable "node_type" {
  description = "Type of each Valkey node."
  type        = string
  default     = "HIGHMEM_MEDIUM"

  validation {
    condition     = contains(["STANDARD_SMALL", "HIGHMEM_MEDIUM", "HIGHMEM_XLARGE"], var.node_type)
    error_message = "node_type must be STANDARD_SMALL, HIGHMEM_MEDIUM or HIGHMEM_XLARGE; SHARED_CORE_NANO has no promise of availability. It is \"${var.node_type}\"."
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
  description = "Replicas of each master, in other zones."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 1 && var.replicas <= 5 && floor(var.replicas) == var.replicas
    error_message = "replicas must be a whole number from 1 to 5: a master without a replica is lost with its zone. It is ${var.replicas}."
  }
}

variable "engine_version" {
  description = "Version of Valkey, as Memorystore names it."
  type        = string
  default     = "VALKEY_8_0"

  validation {
    condition     = contains(["VALKEY_8_0", "VALKEY_9_0"], var.engine_version)
    error_message = "engine_version must be VALKEY_8_0 or VALKEY_9_0. It is \"${var.engine_version}\"."
  }
}

variable "iam_auth" {
  description = "Whether nodes log in by tokens of IAM. A token lasts an hour and Fanfare reads redis.password_file for each new connection, so something beside each node must write it anew; the module cloud-run brings that along. Without it the network alone decides who may connect."
  type        = bool
  default     = true
}

variable "client_members" {
  description = "Who may log in where iam_auth is true: { nodes = \"serviceAccount:…\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for member in values(var.client_members) : can(regex("^(serviceAccount|principal|principalSet|group|user):", member))])
    error_message = "client_members must be members of IAM, for example serviceAccount:nodes@PROJECT.iam.gserviceaccount.com. They are ${jsonencode(var.client_members)}."
  }
}

variable "stream_node_max_bytes" {
  description = "stream-node-max-bytes: 512 for many short topics and inboxes, 1024 where there are long ones too. null leaves it as the service has it, where the service refuses it."
  type        = number
  default     = 512

  validation {
    condition     = var.stream_node_max_bytes == null ? true : var.stream_node_max_bytes >= 128 && var.stream_node_max_bytes <= 4096
    error_message = "stream_node_max_bytes must be from 128 to 4096, or null."
  }
}

variable "client_memory_percent" {
  description = "maxmemory-clients: how much of the memory all connections may have together, those that hear a feed among them. Above it Valkey ends the one that has most."
  type        = number
  default     = 20

  validation {
    condition     = var.client_memory_percent >= 5 && var.client_memory_percent <= 50
    error_message = "client_memory_percent must be from 5 to 50. It is ${var.client_memory_percent}."
  }
}

variable "backup_retention_days" {
  description = "How many days daily backups are kept. 0 makes none."
  type        = number
  default     = 7

  validation {
    condition     = var.backup_retention_days >= 0 && var.backup_retention_days <= 365
    error_message = "backup_retention_days must be from 0 to 365. It is ${var.backup_retention_days}."
  }
}

variable "deletion_protection" {
  description = "Whether Valkey refuses to be deleted."
  type        = bool
  default     = true
}

variable "kms_key_id" {
  description = "Key of Cloud KMS for the data. Without it Google encrypts by keys of its own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_id == null ? true : can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key_id))
    error_message = "kms_key_id must be the name of a key of Cloud KMS, projects/…/locations/…/keyRings/…/cryptoKeys/…. It is \"${coalesce(var.kms_key_id, "null")}\"."
  }
}

variable "labels" {
  description = "Labels of everything in the module that can have them."
  type        = map(string)
  default     = {}
}
