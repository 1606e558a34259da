variable "name" {
  description = "Name of the stack: first part of the name of everything in it."
  type        = string
  default     = "fanfare"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 characters of a-z, 0-9 and -, begin with a letter and not end with -. It is \"${var.name}\"."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the nodes of Kubernetes, in two zones or more."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) >= 2
    error_message = "subnet_ids must be 2 or more subnets in different zones: EKS refuses one, and its loss would be the loss of every node. There are ${length(var.subnet_ids)}."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes, 1.30 or newer, as the chart asks for."
  type        = string
  default     = "1.33"

  validation {
    condition     = can(regex("^1\\.(3[0-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version must be 1.30 or newer: the chart stops pods by a preStop sleep, which is on from 1.30. It is \"${var.kubernetes_version}\"."
  }
}

variable "public_access_cidrs" {
  description = "Networks from which the API server is reached from outside the VPC. Empty: from inside alone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrhost(cidr, 0)) && can(regex("^[0-9.]+/([89]|[12][0-9]|3[0-2])$", cidr))])
    error_message = "public_access_cidrs must be IPv4 networks of /8 to /32 such as 203.0.113.0/24, and not the whole internet or halves of it. They are ${jsonencode(var.public_access_cidrs)}."
  }
}

variable "admin_role_arns" {
  description = "IAM roles whose holders administer the cluster."
  type        = list(string)

  validation {
    condition     = length(var.admin_role_arns) > 0 && alltrue([for arn in var.admin_role_arns : can(regex("^arn:[a-z-]+:iam::", arn))])
    error_message = "admin_role_arns must be ARNs of IAM roles, at least one: otherwise nobody could install the chart. They are ${jsonencode(var.admin_role_arns)}."
  }
}

variable "redis_url" {
  description = "redis.url of the nodes, with TLS and without a password, for the output helm_values."
  type        = string

  validation {
    condition     = can(regex("^(rediss|valkeys)(-cluster|-sentinel)?://", var.redis_url))
    error_message = "redis_url must ask for TLS: rediss://, rediss-cluster:// or rediss-sentinel://. What is before :// is \"${split("://", var.redis_url)[0]}\"."
  }
  validation {
    condition     = !can(regex("://[^/?]*:[^/?@]*@", var.redis_url)) && !can(regex("[?&]sentinel=[^&]*:", var.redis_url))
    error_message = "redis_url must not have a password: it would stand in the output helm_values, which is no secret. Put it into the Secret fanfare-redis."
  }
  validation {
    condition     = !can(regex("^[a-z]+-sentinel:", var.redis_url)) || can(regex("[?&]master=[^&]", var.redis_url))
    error_message = "redis_url of sentinels must name the master: rediss-sentinel://HOST:26379?master=NAME."
  }
}

variable "redis_user" {
  description = "redis.user of the nodes, for the output helm_values. Its password is in the Secret fanfare-redis."
  type        = string
  default     = null
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

variable "deletion_protection" {
  description = "Whether the cluster refuses to be deleted."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "How long the log of the control plane is kept, in days."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch Logs knows (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653). It is ${var.log_retention_days}."
  }
}

variable "create_kms_key" {
  description = "Whether the module makes a KMS key for Kubernetes' secrets. Must be known when it is planned, which a key's ARN need not."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "KMS key for Kubernetes' secrets, where create_kms_key is false, and for the log. Without it the log is encrypted by a key of CloudWatch's own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]+:(key|alias)/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key of KMS, arn:aws:kms:REGION:ACCOUNT:key/…. It is \"${coalesce(var.kms_key_arn, "null")}\"."
  }
  validation {
    condition     = var.create_kms_key || var.kms_key_arn != null
    error_message = "kms_key_arn is needed where create_kms_key is false: Kubernetes' secrets must be encrypted by a key of yours."
  }
}

variable "tags" {
  description = "Tags of everything in the module."
  type        = map(string)
  default     = {}
}
