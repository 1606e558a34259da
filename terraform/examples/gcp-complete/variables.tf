variable "project" {
  description = "Project of Google Cloud."
  type        = string
}

variable "region" {
  description = "Region of Google Cloud."
  type        = string
  default     = "europe-west3"
}

variable "domain" {
  description = "Name under which clients connect."
  type        = string
}

variable "run_domain" {
  description = "Name under which clients connect to Cloud Run."
  type        = string
}

variable "image" {
  description = "Image of Fanfare in Artifact Registry, with a tag or a digest."
  type        = string
}

variable "secrets" {
  description = "Ids of the secrets with api.keys and auth.hmac_secret. How to make them: docs/terraform.md."
  type = object({
    api_keys    = string
    hmac_secret = string
  })
}

variable "alarm_emails" {
  description = "Addresses that are told of alerts."
  type        = list(string)
}

variable "authorized_networks" {
  description = "Networks from which the API server of Kubernetes is reached, by a name of your own."
  type        = map(string)
  default     = {}
}

variable "postgres" {
  description = "Whether there is a PostgreSQL for backends, with a read replica."
  type        = bool
  default     = false
}

variable "backend_service_account" {
  description = "Service account of backends, which may log in to PostgreSQL."
  type        = string
  default     = null
}
