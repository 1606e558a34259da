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
  description = "The subnetwork in which instances have their addresses (direct VPC egress)."
  type        = string
}

# The node

variable "image" {
  description = "Image of Fanfare, with a tag or a digest, in a registry that Cloud Run reads (Artifact Registry). The tag latest is refused: nobody could say what runs, or go back."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must end with a tag other than latest, or with @sha256: and 64 digits. It is \"${var.image}\"."
  }
}

variable "token_image" {
  description = "Image with gcloud and Python, that writes tokens of IAM into a file for Redis. Used where redis_iam_auth is true."
  type        = string
  default     = "google/cloud-sdk:529.0.0-slim"
}

variable "environment" {
  description = "FANFARE_ENV: development, staging or production."
  type        = string
  default     = "production"

  validation {
    condition     = contains(["development", "staging", "production"], var.environment)
    error_message = "environment must be development, staging or production. It is \"${var.environment}\"."
  }
}

variable "connections_max" {
  description = "Most sessions of an instance, and most requests that Cloud Run gives it: 1000 is the most that it allows."
  type        = number
  default     = 1000

  validation {
    condition     = var.connections_max >= 1 && var.connections_max <= 1000 && floor(var.connections_max) == var.connections_max
    error_message = "connections_max must be a whole number from 1 to 1000, the most requests at once that Cloud Run gives an instance. It is ${var.connections_max}."
  }
}

variable "cpu" {
  description = "CPUs of an instance."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2, 4, 6, 8], var.cpu)
    error_message = "cpu must be 1, 2, 4, 6 or 8: less is not given to more than one request at once. It is ${var.cpu}."
  }
}

variable "memory" {
  description = "Memory of an instance, in MiB."
  type        = number
  default     = 2048

  validation {
    condition     = var.memory >= 1024 && var.memory >= lookup({ "4" = 2048, "6" = 4096, "8" = 4096 }, tostring(var.cpu), 512) && var.memory <= lookup({ "1" = 4096, "2" = 8192, "4" = 16384, "6" = 24576 }, tostring(var.cpu), 32768) && floor(var.memory) == var.memory
    error_message = "memory must be a whole number of MiB that Cloud Run has for cpu: 1024 to 4096 for 1, 1024 to 8192 for 2, 2048 to 16384 for 4, 4096 to 24576 for 6, 4096 to 32768 for 8. It is ${var.memory} for cpu ${var.cpu}."
  }
}

variable "extra_environment" {
  description = "Further settings by the names of docs/configuration.md, without secrets: { OTEL_EXPORTER_OTLP_ENDPOINT = \"http://collector:4318\" }. What the module sets itself is refused."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.extra_environment) : can(regex("^(FANFARE|OTEL)_[A-Z0-9_]+$", name))])
    error_message = "extra_environment must have names that begin with FANFARE_ or OTEL_. It has ${jsonencode(keys(var.extra_environment))}."
  }
  validation {
    condition     = length(setintersection(keys(var.extra_environment), local.own_names)) == 0
    error_message = "extra_environment must not set ${join(", ", setintersection(keys(var.extra_environment), local.own_names))}: the module sets it, by a variable of its own or because Cloud Run asks for it, or it must differ from node to node."
  }
  validation {
    condition     = length([for name in keys(var.extra_environment) : name if contains(local.secret_names, name) || endswith(name, "_HEADERS")]) == 0
    error_message = "extra_environment must not set ${join(", ", [for name in keys(var.extra_environment) : name if contains(local.secret_names, name) || endswith(name, "_HEADERS")])}: a secret would stand in the service and in the state. Give its id in secrets or secret_environment."
  }
  validation {
    condition     = alltrue([for value in values(var.extra_environment) : !can(regex("://[^/?,]*@", value))])
    error_message = "extra_environment must have no URL with a login: ${join(", ", [for name, value in var.extra_environment : name if can(regex("://[^/?,]*@", value))])} would stand in the service and in the state. Give its id in secret_environment."
  }
  validation {
    condition     = !can(regex("(^|,) *(redis|valkey)(-cluster|-sentinel)?://", lookup(var.extra_environment, "FANFARE_REDIS__SHARDS", "")))
    error_message = "extra_environment must ask for TLS in FANFARE_REDIS__SHARDS, as redis_url does: rediss://, rediss-cluster:// or rediss-sentinel://."
  }
}

variable "secret_environment" {
  description = "Further settings that are secret: the id of a secret of the project for each name, as { FANFARE_TELEMETRY__HEADERS = \"fanfare-headers\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secret_environment) : can(regex("^(FANFARE|OTEL)_[A-Z0-9_]+$", name)) && !contains(local.own_names, name) && !contains(local.secret_names, name)])
    error_message = "secret_environment must have names that begin with FANFARE_ or OTEL_ and have no variable of their own. It has ${jsonencode(keys(var.secret_environment))}."
  }
  validation {
    condition     = alltrue([for id in values(var.secret_environment) : can(regex("^[A-Za-z0-9_-]{1,255}$", id))])
    error_message = "secret_environment must have ids of secrets of the project, not paths and not the values themselves."
  }
}

# Redis and secrets

variable "redis_url" {
  description = "redis.url, with TLS and without a password."
  type        = string

  validation {
    condition     = can(regex("^(rediss|valkeys)(-cluster|-sentinel)?://", var.redis_url))
    error_message = "redis_url must ask for TLS: rediss://, rediss-cluster:// or rediss-sentinel://. What is before :// is \"${split("://", var.redis_url)[0]}\"."
  }
  validation {
    condition     = !can(regex("://[^/?]*:[^/?@]*@", var.redis_url)) && !can(regex("[?&]sentinel=[^&]*:", var.redis_url))
    error_message = "redis_url must not have a password: it would stand in the service. Use redis_iam_auth."
  }
  validation {
    condition     = !can(regex("^[a-z]+-sentinel:", var.redis_url)) || can(regex("[?&]master=[^&]", var.redis_url))
    error_message = "redis_url of sentinels must name the master: rediss-sentinel://HOST:26379?master=NAME."
  }
}

variable "redis_iam_auth" {
  description = "Whether nodes log in to Valkey by tokens of IAM, which a second container of each instance writes anew every 25 minutes."
  type        = bool
  default     = true
}

variable "redis_ca_pem" {
  description = "The CA of Valkey (output ca_pem of the module redis). Not a secret, but a file, and Cloud Run has files from secrets."
  type        = string
  default     = null
}

variable "secrets" {
  description = "Ids of the secrets in Secret Manager with api.keys (separated by commas) and auth.hmac_secret (32 bytes or more). You make them, so that no state has their values."
  type = object({
    api_keys    = string
    hmac_secret = string
  })

  validation {
    condition     = alltrue([for id in values(var.secrets) : can(regex("^[A-Za-z0-9_-]{1,255}$", id))])
    error_message = "secrets must be ids of secrets of the project, not paths and not the values themselves."
  }
}

# Stopping and scaling

variable "drain_window_s" {
  description = "Over how long the sessions of an instance that stops are told to go and closed. Cloud Run kills 10 s after SIGTERM."
  type        = number
  default     = 6

  validation {
    condition     = var.drain_window_s >= 0 && var.drain_window_s <= 6
    error_message = "drain_window_s must be from 0 to 6: Cloud Run kills 10 s after SIGTERM, and the node needs some of them for what follows. It is ${var.drain_window_s}."
  }
}

variable "session_timeout_s" {
  description = "After how long Cloud Run cuts a session, whatever it does. 3600 s is the most that it allows; clients come back by themselves and miss nothing."
  type        = number
  default     = 3600

  validation {
    condition     = var.session_timeout_s >= 60 && var.session_timeout_s <= 3600
    error_message = "session_timeout_s must be from 60 to 3600, the most that Cloud Run allows. It is ${var.session_timeout_s}."
  }
}

variable "nodes_min" {
  description = "Fewest instances of the gateway, two or more."
  type        = number
  default     = 3

  validation {
    condition     = var.nodes_min >= 2 && floor(var.nodes_min) == var.nodes_min
    error_message = "nodes_min must be a whole number, 2 or more: one instance is one zone, and with none the queue stands still. It is ${var.nodes_min}."
  }
}

variable "nodes_max" {
  description = "Most instances of the gateway. Cloud Run adds them by requests and CPU; it cannot see the queue."
  type        = number
  default     = 30

  validation {
    condition     = var.nodes_max >= var.nodes_min && floor(var.nodes_max) == var.nodes_max
    error_message = "nodes_max must be a whole number, at least nodes_min (${var.nodes_min}). It is ${var.nodes_max}."
  }
}

variable "queue_capacity" {
  description = "queue.capacity: entries of the queue in the whole cluster. Without it 50,000, or more where 1,000 for each of nodes_max nodes ask for it. Entries of priority low are refused from 70 % of it on, so those 70 % must be that much."
  type        = number
  default     = null

  validation {
    condition     = var.queue_capacity == null ? local.queue_capacity_min <= 100000000 : var.queue_capacity >= local.queue_capacity_min && var.queue_capacity <= 100000000 && floor(var.queue_capacity) == var.queue_capacity
    error_message = "queue_capacity must be a whole number from ${local.queue_capacity_min} (1,000 for each of ${var.nodes_max} nodes is 70 % of it, from which on priority low is refused) to 100000000. Raise it, or lower nodes_max."
  }
}

variable "api_nodes_max" {
  description = "Most instances of the service for backends. There are always two."
  type        = number
  default     = 10

  validation {
    condition     = var.api_nodes_max >= 2 && floor(var.api_nodes_max) == var.api_nodes_max
    error_message = "api_nodes_max must be a whole number, 2 or more. It is ${var.api_nodes_max}."
  }
}

# The door

variable "domain" {
  description = "Name under which clients connect. Google makes a certificate for it."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a name such as live.example.com: without it there is no certificate, and sessions without TLS are not offered. It is \"${var.domain}\"."
  }
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
  description = "Whether the services refuse to be deleted."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of everything in the module that can have them."
  type        = map(string)
  default     = {}
}
