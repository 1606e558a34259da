variable "region" {
  description = "Region of AWS."
  type        = string
  default     = "eu-central-1"
}

variable "zones" {
  description = "Availability zones of the region, two or more."
  type        = list(string)
  default     = ["eu-central-1a", "eu-central-1b"]
}

variable "image" {
  description = "Image of Fanfare, with a tag or a digest."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate in ACM for the name under which clients connect."
  type        = string
}

variable "secrets" {
  description = "ARNs of the secrets with api.keys and auth.hmac_secret. How to make them: docs/terraform.md."
  type = object({
    api_keys    = string
    hmac_secret = string
  })
}

variable "alarm_emails" {
  description = "Addresses that are told of alarms."
  type        = list(string)
}

variable "admin_role_arns" {
  description = "IAM roles whose holders administer the cluster of Kubernetes."
  type        = list(string)
}

variable "web_acl_arn" {
  description = "Web ACL of WAF in front of the balancer."
  type        = string
  default     = null
}

variable "access_log_bucket" {
  description = "S3 bucket for the balancer's access log."
  type        = string
  default     = null
}

variable "remote_write" {
  description = "Whether a Prometheus or a collector of yours scrapes every node and writes to the output prometheus_endpoint. Then there are a workspace and the repository's alert rules; without it the alarms of CloudWatch alone."
  type        = bool
  default     = false
}

variable "postgres" {
  description = "Whether there is a PostgreSQL for backends, with a read replica."
  type        = bool
  default     = false
}
