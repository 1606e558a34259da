# Who knocks too often is turned away before a node hears of it. Sessions themselves are not looked into.
resource "google_compute_security_policy" "this" {
  project     = var.project
  name        = "${var.name}-run"
  description = "Door of Fanfare, ${var.name}"

  rule {
    action      = "deny(403)"
    priority    = 900
    description = "A known hole of Java's logging"

    match {
      expr {
        expression = "evaluatePreconfiguredWaf('cve-canary')"
      }
    }
  }

  rule {
    action      = "throttle"
    priority    = 1000
    description = "Handshakes of one address"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }

    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"

      rate_limit_threshold {
        count        = var.requests_per_minute_max
        interval_sec = 60
      }
    }
  }

  rule {
    action      = "allow"
    priority    = 2147483647
    description = "Everybody else: the node asks for a token"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}
