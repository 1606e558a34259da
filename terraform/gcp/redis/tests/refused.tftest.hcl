# Values that cannot work, each refused by the variable that has it.

mock_provider "google" {
  mock_resource "google_memorystore_instance" {
    defaults = {
      endpoints = [{ connections = [{ psc_auto_connection = [{
        connection_type = "CONNECTION_TYPE_DISCOVERY", forwarding_rule = "f", ip_address = "10.30.0.9", network = "n",
        port            = 6379, project_id = "fanfare-test", psc_connection_id = "1", service_attachment = "s"
      }] }] }]
      managed_server_ca = [{ ca_certs = [{ certificates = ["-----BEGIN CERTIFICATE-----", "second"] }] }]
    }
  }
}

variables {
  project                      = "fanfare-test"
  region                       = "europe-west3"
  network_id                   = "projects/fanfare-test/global/networks/fanfare"
  service_connection_policy_id = "policy"
}

run "more_shards_than_partitions_are_for_is_refused" {
  command = plan
  variables {
    shards = 40
  }
  expect_failures = [var.shards]
}

run "an_engine_that_is_not_offered_is_refused" {
  command = plan
  variables {
    engine_version = "VALKEY_9_9"
  }
  expect_failures = [var.engine_version]
}

run "what_is_no_key_is_refused" {
  command = plan
  variables {
    kms_key_id = "not a key"
  }
  expect_failures = [var.kms_key_id]
}
