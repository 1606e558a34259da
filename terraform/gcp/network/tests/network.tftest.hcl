mock_provider "google" {}

variables {
  project = "fanfare-test"
  region  = "europe-west3"
}

run "private_and_spread" {
  assert {
    condition     = !google_compute_network.this.auto_create_subnetworks && google_compute_subnetwork.this.private_ip_google_access
    error_message = "There must be one subnetwork, from which Google's APIs are reached without public addresses."
  }
  assert {
    condition     = google_compute_router_nat.this.source_subnetwork_ip_ranges_to_nat == "ALL_SUBNETWORKS_ALL_IP_RANGES"
    error_message = "Pods must reach the outside too, not only machines."
  }
  assert {
    condition     = output.pods_range_name == "pods" && output.services_range_name == "services"
    error_message = "GKE asks for both ranges by name."
  }
}

run "memorystore_may_come_in" {
  assert {
    condition     = google_network_connectivity_service_connection_policy.memorystore.service_class == "gcp-memorystore"
    error_message = "Without a policy of this class Memorystore cannot be made."
  }
  assert {
    condition     = length(google_service_networking_connection.this) == 0 && output.private_services_id == null
    error_message = "The range for Cloud SQL must be off unless it is asked for."
  }
}

run "with_room_for_cloud_sql" {
  variables {
    private_services = true
  }
  assert {
    condition     = google_compute_global_address.private_services[0].purpose == "VPC_PEERING" && length(google_service_networking_connection.this) == 1
    error_message = "Cloud SQL needs a range and a connection."
  }
}

run "bad_cidr_is_refused" {
  command = plan
  variables {
    cidr      = "10.30.0.0"
    pods_cidr = "10.32.0.1/16"
  }
  expect_failures = [var.cidr, var.pods_cidr]
}

run "a_zone_is_no_region" {
  command = plan
  variables {
    region = "europe-west3-a"
  }
  expect_failures = [var.region]
}
