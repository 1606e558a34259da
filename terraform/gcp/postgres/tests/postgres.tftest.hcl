mock_provider "google" {}

variables {
  project             = "fanfare-test"
  region              = "europe-west3"
  network_id          = "projects/fanfare-test/global/networks/fanfare"
  private_services_id = "connection"
  enabled             = true
}

run "off_makes_nothing" {
  variables {
    enabled                 = false
    private_services_id     = null
    read_replicas           = 2
    client_service_accounts = { backend = "backend@fanfare-test.iam.gserviceaccount.com" }
  }
  assert {
    condition     = output.address == null && length(output.replica_addresses) == 0 && output.connection_name == null
    error_message = "Without enabled there must be no database."
  }
  assert {
    condition     = length(google_sql_user.client) == 0 && length(google_sql_database.fanfare) == 0
    error_message = "Without enabled there must be nothing in a database either."
  }
}

run "safe_by_default" {
  assert {
    condition = (
      google_sql_database_instance.primary[0].settings[0].availability_type == "REGIONAL" &&
      google_sql_database_instance.primary[0].deletion_protection &&
      google_sql_database_instance.primary[0].settings[0].backup_configuration[0].point_in_time_recovery_enabled
    )
    error_message = "The primary must stand in two zones, be protected, and be restorable to any moment."
  }
  assert {
    condition = (
      !google_sql_database_instance.primary[0].settings[0].ip_configuration[0].ipv4_enabled &&
      google_sql_database_instance.primary[0].settings[0].ip_configuration[0].ssl_mode == "ENCRYPTED_ONLY"
    )
    error_message = "The database must be private and refuse whoever comes without TLS."
  }
}

run "replicas_and_logins" {
  variables {
    read_replicas           = 2
    client_service_accounts = { backend = "backend@fanfare-test.iam.gserviceaccount.com" }
  }
  assert {
    condition     = length(google_sql_database_instance.replica) == 2 && google_sql_database_instance.replica[1].master_instance_name == "fanfare-postgres"
    error_message = "There must be two replicas of the primary."
  }
  assert {
    condition     = google_sql_database_instance.replica[0].settings[0].database_flags == google_sql_database_instance.primary[0].settings[0].database_flags && length(google_sql_database_instance.primary[0].settings[0].database_flags) == 13
    error_message = "Replicas must have the flags of the primary."
  }
  assert {
    condition     = google_sql_user.client["backend"].name == "backend@fanfare-test.iam" && google_sql_user.client["backend"].type == "CLOUD_IAM_SERVICE_ACCOUNT"
    error_message = "A service account must log in by IAM, under the name that Cloud SQL gives it."
  }
}

run "without_a_range_is_refused" {
  command = plan
  variables {
    private_services_id = null
  }
  expect_failures = [var.private_services_id]
}

run "a_machine_without_a_promise_is_refused" {
  command = plan
  variables {
    tier = "db-f1-micro"
  }
  expect_failures = [var.tier]
}
