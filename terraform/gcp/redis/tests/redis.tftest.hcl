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

run "survives_a_zone_and_speaks_tls_alone" {
  assert {
    condition     = google_memorystore_instance.this.zone_distribution_config[0].mode == "MULTI_ZONE" && google_memorystore_instance.this.replica_count == 1
    error_message = "The loss of a zone must be a failover."
  }
  assert {
    condition     = google_memorystore_instance.this.transit_encryption_mode == "SERVER_AUTHENTICATION"
    error_message = "TLS must be required: google_memorystore_instance.this has it off."
  }
  assert {
    condition     = output.redis_url == "rediss-cluster://10.30.0.9:6379" && startswith(output.ca_pem, "-----BEGIN CERTIFICATE-----\nsecond")
    error_message = "The nodes' URL must ask for TLS and for a cluster, with the CA of the instance."
  }
}

run "what_fanfare_asks_of_valkey" {
  assert {
    condition = google_memorystore_instance.this.engine_configs == tomap({
      "maxmemory-policy"      = "noeviction"
      "maxmemory-clients"     = "20%"
      "stream-node-max-bytes" = "512"
    })
    error_message = "The settings must be those of docs/redis.md."
  }
  assert {
    condition     = google_memorystore_instance.this.persistence_config[0].aof_config[0].append_fsync == "EVERY_SEC" && google_memorystore_instance.this.automated_backup_config[0].retention == "604800s"
    error_message = "Every second must be written, and a week of backups kept."
  }
}

run "who_may_log_in" {
  variables {
    client_members = { nodes = "serviceAccount:nodes@fanfare-test.iam.gserviceaccount.com" }
  }
  assert {
    condition     = google_memorystore_instance.this.authorization_mode == "IAM_AUTH" && output.redis_user == "default"
    error_message = "By default nodes must log in by IAM, as the user default."
  }
  assert {
    condition     = strcontains(google_project_iam_member.clients["nodes"].condition[0].expression, "instances/fanfare-redis\"")
    error_message = "The right must be for this instance alone."
  }
}

run "without_iam_and_backups" {
  variables {
    iam_auth              = false
    backup_retention_days = 0
    stream_node_max_bytes = null
    client_members        = { nodes = "serviceAccount:nodes@fanfare-test.iam.gserviceaccount.com" }
  }
  assert {
    condition     = google_memorystore_instance.this.authorization_mode == "AUTH_DISABLED" && output.redis_user == null && length(google_project_iam_member.clients) == 0
    error_message = "Without IAM there must be no user and no right."
  }
  assert {
    condition     = length(google_memorystore_instance.this.automated_backup_config) == 0 && !contains(keys(google_memorystore_instance.this.engine_configs), "stream-node-max-bytes")
    error_message = "What is off must not be asked for."
  }
}

run "a_zone_is_no_region" {
  command = plan
  variables {
    region = "europe-west3-a"
  }
  expect_failures = [var.region]
}

run "a_master_without_replica_is_refused" {
  command = plan
  variables {
    replicas = 0
  }
  expect_failures = [var.replicas]
}

run "a_type_without_a_promise_is_refused" {
  command = plan
  variables {
    node_type = "SHARED_CORE_NANO"
  }
  expect_failures = [var.node_type]
}
