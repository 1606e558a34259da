# The public door: a global balancer with TLS alone. What comes by plain HTTP is sent on to HTTPS.

resource "google_compute_region_network_endpoint_group" "gateway" {
  project               = var.project
  name                  = var.name
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloud_run_v2_service.this["gateway"].name
  }
}

resource "google_compute_backend_service" "gateway" {
  project               = var.project
  name                  = var.name
  protocol              = "HTTPS"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  security_policy       = google_compute_security_policy.this.id

  backend {
    group = google_compute_region_network_endpoint_group.gateway.id
  }

  log_config {
    enable      = true
    sample_rate = 1
  }
}

resource "google_compute_ssl_policy" "this" {
  project         = var.project
  name            = "${var.name}-run"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_managed_ssl_certificate" "this" {
  project = var.project
  name    = "${var.name}-run"

  managed {
    domains = [var.domain]
  }
}

resource "google_compute_url_map" "gateway" {
  project         = var.project
  name            = "${var.name}-run"
  default_service = google_compute_backend_service.gateway.id
}

resource "google_compute_target_https_proxy" "gateway" {
  project          = var.project
  name             = "${var.name}-run"
  url_map          = google_compute_url_map.gateway.id
  ssl_certificates = [google_compute_managed_ssl_certificate.this.id]
  ssl_policy       = google_compute_ssl_policy.this.id
}

resource "google_compute_global_address" "this" {
  project = var.project
  name    = "${var.name}-run"
}

resource "google_compute_global_forwarding_rule" "https" {
  project               = var.project
  name                  = "${var.name}-run-https"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.gateway.id
  labels                = local.labels
}

resource "google_compute_url_map" "redirect" {
  project = var.project
  name    = "${var.name}-run-redirect"

  default_url_redirect {
    https_redirect         = true
    strip_query            = false
    redirect_response_code = "MOVED_PERMANENTLY_DEFAULT"
  }
}

resource "google_compute_target_http_proxy" "redirect" {
  project = var.project
  name    = "${var.name}-run-redirect"
  url_map = google_compute_url_map.redirect.id
}

resource "google_compute_global_forwarding_rule" "redirect" {
  project               = var.project
  name                  = "${var.name}-run-http"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this.id
  port_range            = "80"
  target                = google_compute_target_http_proxy.redirect.id
  labels                = local.labels
}
