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
  description = "The network."
  type        = string
}

variable "subnetwork_id" {
  description = "The subnetwork of the machines."
  type        = string
}

variable "pods_range_name" {
  description = "Range of pods in the subnetwork."
  type        = string
  default     = "pods"
}

variable "services_range_name" {
  description = "Range of services in the subnetwork."
  type        = string
  default     = "services"
}

variable "control_plane_cidr" {
  description = "IPv4 network of /28 for the control plane."
  type        = string
  default     = "172.16.0.0/28"

  validation {
    condition     = can(regex("/28$", var.control_plane_cidr)) && try(cidrhost(var.control_plane_cidr, 0) == split("/", var.control_plane_cidr)[0], false)
    error_message = "control_plane_cidr must be the address of an IPv4 network of /28, for example 172.16.0.0/28. It is \"${var.control_plane_cidr}\"."
  }
}

variable "authorized_networks" {
  description = "Networks from which the API server is reached, by a name of your own. Empty: from inside the network alone."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for cidr in values(var.authorized_networks) : can(cidrhost(cidr, 0)) && can(regex("^[0-9.]+/([89]|[12][0-9]|3[0-2])$", cidr))])
    error_message = "authorized_networks must be IPv4 networks of /8 to /32 such as 203.0.113.0/24, and not the whole internet or halves of it. They are ${jsonencode(var.authorized_networks)}."
  }
}

variable "release_channel" {
  description = "STABLE or REGULAR. Google updates the cluster by it; all versions that it gives have what the chart needs."
  type        = string
  default     = "STABLE"

  validation {
    condition     = contains(["STABLE", "REGULAR"], var.release_channel)
    error_message = "release_channel must be STABLE or REGULAR. It is \"${var.release_channel}\"."
  }
}

variable "domain" {
  description = "Name under which clients connect. Google makes a certificate for it."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a name such as live.example.com: without it there is no certificate, and sessions without TLS are not offered. It is \"${var.domain}\"."
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
    error_message = "redis_url must not have a password: it would stand in the output helm_values, which is no secret. Put it into a Secret of Kubernetes."
  }
  validation {
    condition     = !can(regex("^[a-z]+-sentinel:", var.redis_url)) || can(regex("[?&]master=[^&]", var.redis_url))
    error_message = "redis_url of sentinels must name the master: rediss-sentinel://HOST:26379?master=NAME."
  }
}

variable "redis_iam_auth" {
  description = "Whether nodes log in to Valkey by tokens of IAM. The output helm_values then has a container beside each node that writes them anew every 25 minutes. As iam_auth of the module redis."
  type        = bool
  default     = false
}

variable "token_image" {
  description = "Image with gcloud, that writes tokens of IAM into a file for Redis. Used where redis_iam_auth is true."
  type        = string
  default     = "google/cloud-sdk:529.0.0-slim"
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

variable "kubernetes_namespace" {
  description = "Namespace in which the chart is installed."
  type        = string
  default     = "fanfare"
}

variable "requests_per_minute_max" {
  description = "Most handshakes a minute from one address. Others get 429."
  type        = number
  default     = 600

  validation {
    condition     = var.requests_per_minute_max >= 60
    error_message = "requests_per_minute_max must be 60 or more: many people may share an address. It is ${var.requests_per_minute_max}."
  }
}

variable "deletion_protection" {
  description = "Whether the cluster refuses to be deleted."
  type        = bool
  default     = true
}

variable "kms_key_id" {
  description = "Key of Cloud KMS for Kubernetes' secrets. Without it Google encrypts by keys of its own."
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
