variable "name" {
  description = "Name of the stack: first part of the name of everything in it."
  type        = string
  default     = "fanfare"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 characters of a-z, 0-9 and -, begin with a letter and not end with -. It is \"${var.name}\"."
  }
}

variable "enabled" {
  description = "Whether there is a database. No node needs one: it is for a backend's own tables, an outbox among them."
  type        = bool
  default     = false
}

variable "vpc_id" {
  description = "The VPC in which the database stands."
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
    error_message = "subnet_ids must be 2 or more subnets in different zones. There are ${length(var.subnet_ids)}."
  }
}

variable "client_security_group_ids" {
  description = "Security groups that may connect, by a name of your own: { backend = \"sg-…\" }."
  type        = map(string)
  default     = {}
}

variable "instance_class" {
  description = "Class of the primary and its read replicas."
  type        = string
  default     = "db.t4g.medium"

  validation {
    condition     = startswith(var.instance_class, "db.")
    error_message = "instance_class must be a class of RDS, for example db.t4g.medium. It is \"${var.instance_class}\"."
  }
}

variable "engine_version" {
  description = "Major version of PostgreSQL."
  type        = string
  default     = "17"

  validation {
    condition     = can(regex("^1[5-7]$", var.engine_version))
    error_message = "engine_version must be 15, 16 or 17. It is \"${var.engine_version}\"."
  }
}

variable "storage_gb" {
  description = "Storage at the beginning, in GB. It grows by itself up to ten times as much."
  type        = number
  default     = 50

  validation {
    condition     = var.storage_gb >= 20 && var.storage_gb <= 6000
    error_message = "storage_gb must be from 20 to 6000. It is ${var.storage_gb}."
  }
}

variable "read_replicas" {
  description = "Read replicas, for reports. An outbox must be read on the primary: a replica is behind, and rows would be published late or twice."
  type        = number
  default     = 0

  validation {
    condition     = var.read_replicas >= 0 && var.read_replicas <= 5 && floor(var.read_replicas) == var.read_replicas
    error_message = "read_replicas must be a whole number from 0 to 5. It is ${var.read_replicas}."
  }
}

variable "backup_days" {
  description = "How many days back the database can be restored to any moment."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be from 1 to 35: read replicas and restores need backups. It is ${var.backup_days}."
  }
}

variable "deletion_protection" {
  description = "Whether the database refuses to be deleted. Without it the last snapshot is kept all the same."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "KMS key for data, snapshots and the password. Without it the services encrypt by keys of their own."
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
