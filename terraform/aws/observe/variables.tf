variable "name" {
  description = "Name of the stack: first part of the name of everything in it."
  type        = string
  default     = "fanfare"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 characters of a-z, 0-9 and -, begin with a letter and not end with -. It is \"${var.name}\"."
  }
}

variable "alarm_emails" {
  description = "Addresses that are told of alarms. Each has to confirm by a mail from AWS."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "alarm_emails must be addresses of mail. They are ${jsonencode(var.alarm_emails)}."
  }
}

variable "ecs" {
  description = "What is watched of a service of the module ecs: its outputs of the same names. Without it, nothing of ECS is watched (for EKS, or Prometheus alone)."
  type = object({
    cluster_name            = string
    service_name            = string
    balancer_arn_suffix     = string
    target_group_arn_suffix = string
    metric_namespace        = string
    metric_service          = string
    connections_max         = number
    nodes_min               = number
  })
  default = null
}

variable "queue_pressure_limit" {
  description = "fanfare_queue_pressure of a node above which somebody is told: scaling aims at 1000, so three times as much for ten minutes says that it does not help."
  type        = number
  default     = 3000

  validation {
    condition     = var.queue_pressure_limit > 0
    error_message = "queue_pressure_limit must be above 0. It is ${var.queue_pressure_limit}."
  }
}

variable "prometheus_rules" {
  description = "Alert rules for a workspace of Amazon Managed Prometheus, as text: file(\"helm/fanfare/files/rules.yaml\"). Without them no workspace is made. Needs remote_write."
  type        = string
  default     = null

  validation {
    condition     = var.prometheus_rules == null ? true : can(yamldecode(var.prometheus_rules).groups[0].rules[0].alert)
    error_message = "prometheus_rules must be the text of a file with alert rules, for example that of helm/fanfare/files/rules.yaml, and not its path."
  }
  validation {
    condition     = var.prometheus_rules == null || var.remote_write
    error_message = "prometheus_rules need remote_write = true: nothing in this module scrapes nodes. Let a Prometheus or a collector of yours scrape each node every 15 s and write to the output prometheus_endpoint; without it FanfareNothingScraped fires for ever."
  }
}

variable "remote_write" {
  description = "Whether a Prometheus or a collector of yours scrapes every node each 15 s and writes to the output prometheus_endpoint. Nothing in the module does."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "KMS key for the topic of alarms and the workspace. Its policy must let CloudWatch use it. Without it the services encrypt by keys of their own."
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
