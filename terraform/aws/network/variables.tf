variable "name" {
  description = "Name of the stack: first part of the name of everything in it."
  type        = string
  default     = "fanfare"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 characters of a-z, 0-9 and -, begin with a letter and not end with -. It is \"${var.name}\"."
  }
}

variable "cidr" {
  description = "IPv4 network of the VPC. It is cut into 16 parts, two of which go to each zone: /23 at most, because a balancer needs subnets of /27."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition = (
      can(regex("^[0-9.]+/(1[6-9]|2[0-3])$", var.cidr)) &&
      try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false)
    )
    error_message = "cidr must be the address of an IPv4 network of /16 to /23, for example 10.20.0.0/16. It is \"${var.cidr}\"."
  }
}

variable "zones" {
  description = "Availability zones, two or more: with one, the loss of that zone is the loss of the service."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 6 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must be 2 to 6 different availability zones, for example [\"eu-central-1a\", \"eu-central-1b\"]. They are ${jsonencode(var.zones)}."
  }
}

variable "nat_gateways" {
  description = "How private subnets reach the internet: \"zone\" (one gateway in each zone), \"single\" (one in all: cheaper, and it goes with its zone), \"none\" (only what vpc_endpoints lead to)."
  type        = string
  default     = "zone"

  validation {
    condition     = contains(["zone", "single", "none"], var.nat_gateways)
    error_message = "nat_gateways must be \"zone\", \"single\" or \"none\". It is \"${var.nat_gateways}\"."
  }
}

variable "vpc_endpoints" {
  description = "Whether logs, secrets and images are reached inside the VPC. Needed where nat_gateways is \"none\"."
  type        = bool
  default     = false

  validation {
    condition     = var.vpc_endpoints || var.nat_gateways != "none"
    error_message = "vpc_endpoints must be true where nat_gateways is \"none\": otherwise no task can fetch its image."
  }
}

variable "flow_log_retention_days" {
  description = "How long the flow log of the VPC is kept, in days. 0 makes no flow log."
  type        = number
  default     = 365

  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.flow_log_retention_days)
    error_message = "flow_log_retention_days must be 0 or a number of days that CloudWatch Logs knows (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731). It is ${var.flow_log_retention_days}."
  }
}

variable "kms_key_arn" {
  description = "KMS key for the flow log. Without it CloudWatch Logs encrypts by a key of its own."
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
