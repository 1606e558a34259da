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

variable "cidr" {
  description = "IPv4 network of the subnetwork, in which machines, Cloud Run and Valkey have their addresses."
  type        = string
  default     = "10.30.0.0/20"

  validation {
    condition = (
      can(regex("^[0-9.]+/(1[6-9]|2[0-4])$", var.cidr)) &&
      try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false)
    )
    error_message = "cidr must be the address of an IPv4 network of /16 to /24, for example 10.30.0.0/20. It is \"${var.cidr}\"."
  }
}

variable "pods_cidr" {
  description = "IPv4 network of the pods of GKE."
  type        = string
  default     = "10.32.0.0/16"

  validation {
    condition     = can(regex("/(1[0-9]|2[0-1])$", var.pods_cidr)) && try(cidrhost(var.pods_cidr, 0) == split("/", var.pods_cidr)[0], false)
    error_message = "pods_cidr must be the address of an IPv4 network of /10 to /21, for example 10.32.0.0/16. It is \"${var.pods_cidr}\"."
  }
}

variable "services_cidr" {
  description = "IPv4 network of the services of GKE."
  type        = string
  default     = "10.31.0.0/20"

  validation {
    condition     = can(regex("/(1[6-9]|2[0-4])$", var.services_cidr)) && try(cidrhost(var.services_cidr, 0) == split("/", var.services_cidr)[0], false)
    error_message = "services_cidr must be the address of an IPv4 network of /16 to /24, for example 10.31.0.0/20. It is \"${var.services_cidr}\"."
  }
}

variable "private_services" {
  description = "Whether there is a range for services of Google in this network. Needed for Cloud SQL (module postgres)."
  type        = bool
  default     = false
}

variable "labels" {
  description = "Labels of everything in the module that can have them."
  type        = map(string)
  default     = {}
}
