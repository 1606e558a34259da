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

variable "enabled" {
  description = "Whether there is a database. No node needs one: it is for a backend's own tables, an outbox among them."
  type        = bool
  default     = false
}

variable "network_id" {
  description = "Network from which the database is reached."
  type        = string
}

variable "private_services_id" {
  description = "Output private_services_id of the module network with private_services = true. Needed where enabled is true."
  type        = string
  default     = null

  validation {
    condition     = !var.enabled || var.private_services_id != null
    error_message = "private_services_id is needed where enabled is true: set private_services = true in the module network and give its output."
  }
}

variable "tier" {
  description = "Machine of the primary and its read replicas."
  type        = string
  default     = "db-custom-2-7680"

  validation {
    condition     = can(regex("^db-", var.tier)) && !contains(["db-f1-micro", "db-g1-small"], var.tier)
    error_message = "tier must be a machine of Cloud SQL with a promise of availability, for example db-custom-2-7680. It is \"${var.tier}\"."
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
    condition     = var.storage_gb >= 10 && var.storage_gb <= 6000
    error_message = "storage_gb must be from 10 to 6000. It is ${var.storage_gb}."
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
  description = "How many daily backups are kept. Any moment of the last seven days can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 365
    error_message = "backup_days must be from 1 to 365: read replicas and restores need backups. It is ${var.backup_days}."
  }
}

variable "client_service_accounts" {
  description = "Service accounts that may log in by IAM, by a name of your own: { backend = \"backend@PROJECT.iam.gserviceaccount.com\" }. No user has a password."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for account in values(var.client_service_accounts) : endswith(account, ".iam.gserviceaccount.com")])
    error_message = "client_service_accounts must be addresses that end with .iam.gserviceaccount.com. They are ${jsonencode(var.client_service_accounts)}."
  }
}

variable "deletion_protection" {
  description = "Whether the database refuses to be deleted."
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
