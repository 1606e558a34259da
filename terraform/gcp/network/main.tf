# One network with one subnetwork, which in Google Cloud reaches over all zones of the region. Nothing in
# it has a public address; what goes out goes through NAT.

resource "google_compute_network" "this" {
  #checkov:skip=CKV2_GCP_18:Without a rule nothing comes in; GKE and balancers make the rules that they need
  project                 = var.project
  name                    = var.name
  description             = "Network of ${var.name}"
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"
}

resource "google_compute_subnetwork" "this" {
  #checkov:skip=CKV_GCP_76:IPv4 alone: nothing here has an IPv6 address
  project                  = var.project
  name                     = var.name
  region                   = var.region
  network                  = google_compute_network.this.id
  ip_cidr_range            = var.cidr
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.pods_cidr
  }
  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.services_cidr
  }

  log_config {
    aggregation_interval = "INTERVAL_1_MIN"
    flow_sampling        = 0.5
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_router" "this" {
  project = var.project
  name    = var.name
  region  = var.region
  network = google_compute_network.this.id
}

resource "google_compute_router_nat" "this" {
  project                            = var.project
  name                               = var.name
  region                             = var.region
  router                             = google_compute_router.this.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Memorystore puts its endpoints into the subnetwork by this policy. There is one a network and region.
resource "google_network_connectivity_service_connection_policy" "memorystore" {
  project       = var.project
  name          = "${var.name}-memorystore"
  location      = var.region
  service_class = "gcp-memorystore"
  description   = "Valkey of ${var.name}"
  network       = google_compute_network.this.id
  labels        = merge({ application = "fanfare", stack = var.name }, var.labels)

  psc_config {
    subnetworks = [google_compute_subnetwork.this.id]
  }
}

resource "google_compute_global_address" "private_services" {
  count = var.private_services ? 1 : 0

  project       = var.project
  name          = "${var.name}-private-services"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  network       = google_compute_network.this.id
}

resource "google_service_networking_connection" "this" {
  count = var.private_services ? 1 : 0

  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.private_services[0].name]
}
