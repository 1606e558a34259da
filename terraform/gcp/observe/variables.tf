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

variable "alarm_emails" {
  description = "Addresses that are told of alerts."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "alarm_emails must be addresses of mail. They are ${jsonencode(var.alarm_emails)}."
  }
}

variable "notification_channels" {
  description = "Further channels of Cloud Monitoring that are told of alerts, by their full names."
  type        = list(string)
  default     = []
}

variable "prometheus_rules" {
  description = "Alert rules as text: file(\"helm/fanfare/files/rules.yaml\"). Each becomes a policy over managed Prometheus, to which the nodes' metrics must come (GKE: PodMonitoring). Without them there are none."
  type        = string
  default     = null

  validation {
    condition     = var.prometheus_rules == null ? true : can(yamldecode(var.prometheus_rules).groups[0].rules[0].alert)
    error_message = "prometheus_rules must be the text of a file with alert rules, for example that of helm/fanfare/files/rules.yaml, and not its path."
  }
}

variable "cloud_run_services" {
  description = "Services of Cloud Run that are watched: outputs gateway_name and api_name of the module cloud-run."
  type        = list(string)
  default     = []
}

variable "cloud_run_nodes_max" {
  description = "nodes_max of the module cloud-run. Somebody is told when nine tenths of them run."
  type        = number
  default     = 30

  validation {
    condition     = var.cloud_run_nodes_max >= 2
    error_message = "cloud_run_nodes_max must be 2 or more. It is ${var.cloud_run_nodes_max}."
  }
}

variable "redis_instance_id" {
  description = "Instance of Memorystore that is watched, by its id (NAME-redis). Without it none is."
  type        = string
  default     = null
}

variable "domain" {
  description = "Name under which clients connect, asked from several continents once a minute. Without it nothing is asked."
  type        = string
  default     = null
}

variable "labels" {
  description = "Labels of everything in the module that can have them."
  type        = map(string)
  default     = {}
}
