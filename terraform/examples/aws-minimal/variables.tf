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
