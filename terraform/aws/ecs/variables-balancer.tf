variable "certificate_arn" {
  description = "Certificate of the balancer, in ACM. There is no listener without TLS."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:acm:", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of a certificate in ACM: sessions without TLS are not offered. It is \"${var.certificate_arn}\"."
  }
}

variable "tls_policy" {
  description = "Policy of the listener, TLS 1.2 or newer."
  type        = string
  default     = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  validation {
    condition     = can(regex("^ELBSecurityPolicy-TLS13-1-[23]-", var.tls_policy))
    error_message = "tls_policy must begin with ELBSecurityPolicy-TLS13-1-2- or ELBSecurityPolicy-TLS13-1-3-: older ones allow TLS below 1.2. It is \"${var.tls_policy}\"."
  }
}

variable "internal" {
  description = "Whether the balancer is reached from inside the VPC alone."
  type        = bool
  default     = false
}

variable "allowed_cidrs" {
  description = "Networks from which clients may connect."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrhost(cidr, 0)) && !strcontains(cidr, ":")])
    error_message = "allowed_cidrs must be one or more IPv4 networks such as 203.0.113.0/24: the balancer has no IPv6 address. They are ${jsonencode(var.allowed_cidrs)}."
  }
}

variable "idle_timeout_s" {
  description = "How long the balancer keeps a connection on which nothing moves. Nodes ping every 25 s, so more than a minute is room for slow networks."
  type        = number
  default     = 4000

  validation {
    condition     = var.idle_timeout_s >= 60 && var.idle_timeout_s <= 4000
    error_message = "idle_timeout_s must be from 60 (twice session.ping_ms and room) to 4000, the most that an ALB allows. It is ${var.idle_timeout_s}."
  }
}

variable "deregistration_delay_s" {
  description = "How long the balancer keeps the connections of a node that leaves. ECS sends SIGTERM only after it, so this is how long scripts/ecs-drain has."
  type        = number
  default     = 300

  validation {
    condition     = var.deregistration_delay_s >= local.stop_longest_s && var.deregistration_delay_s <= 3600 && floor(var.deregistration_delay_s) == var.deregistration_delay_s
    error_message = "deregistration_delay_s must be a whole number from ${local.stop_longest_s} (the longest stop of a node) to 3600. It is ${var.deregistration_delay_s}."
  }
}

variable "balancing" {
  description = "least_outstanding_requests (an open session counts as a request, so new ones go where the fewest are) or round_robin."
  type        = string
  default     = "least_outstanding_requests"

  validation {
    condition     = contains(["least_outstanding_requests", "round_robin"], var.balancing)
    error_message = "balancing must be least_outstanding_requests or round_robin. It is \"${var.balancing}\"."
  }
}

variable "stickiness" {
  description = "Whether a client comes back to the node where it was. Not needed: any node serves any user."
  type        = bool
  default     = false
}

variable "health_path" {
  description = "What the balancer asks of a node. ECS replaces a task whose target is unhealthy: with /health/ready it would do so to a node that is full, and to every node while Redis is away."
  type        = string
  default     = "/health/live"

  validation {
    condition     = contains(["/health/live", "/health/ready"], var.health_path)
    error_message = "health_path must be /health/live or /health/ready. It is \"${var.health_path}\"."
  }
}

variable "access_log_bucket" {
  description = "S3 bucket for the balancer's access log. Without it none is written."
  type        = string
  default     = null
}

variable "web_acl_arn" {
  description = "Web ACL of WAF in front of the balancer. Without it there is none."
  type        = string
  default     = null

  validation {
    condition     = var.web_acl_arn == null ? true : can(regex("^arn:[a-z-]+:wafv2:[a-z0-9-]+:[0-9]+:regional/webacl/", var.web_acl_arn))
    error_message = "web_acl_arn must be the ARN of a regional web ACL of WAF, arn:aws:wafv2:REGION:ACCOUNT:regional/webacl/…. It is \"${coalesce(var.web_acl_arn, "null")}\"."
  }
}

variable "deletion_protection" {
  description = "Whether the balancer refuses to be deleted."
  type        = bool
  default     = true
}

variable "api_client_security_group_ids" {
  description = "Security groups of backends that may call the API, by a name of your own."
  type        = map(string)
  default     = {}
}

variable "metrics_client_security_group_ids" {
  description = "Security groups that may scrape metrics, by a name of your own."
  type        = map(string)
  default     = {}
}
