mock_provider "google" {
  mock_resource "google_memorystore_instance" {
    defaults = {
      endpoints = [{ connections = [{ psc_auto_connection = [{
        connection_type = "CONNECTION_TYPE_DISCOVERY", forwarding_rule = "f", ip_address = "10.30.0.9", network = "n",
        port            = 6379, project_id = "fanfare-test", psc_connection_id = "1", service_attachment = "s"
      }] }] }]
      managed_server_ca = [{ ca_certs = [{ certificates = ["-----BEGIN CERTIFICATE-----"] }] }]
    }
  }
  mock_resource "google_service_account" {
    defaults = { member = "serviceAccount:nodes@fanfare-test.iam.gserviceaccount.com" }
  }
}

variables {
  project      = "fanfare-test"
  domain       = "live.example.com"
  run_domain   = "run.example.com"
  image        = "europe-docker.pkg.dev/fanfare-test/fanfare/fanfare:0.1.0"
  secrets      = { api_keys = "fanfare-api-keys", hmac_secret = "fanfare-hmac" }
  alarm_emails = ["oncall@example.com"]
}

run "everything_is_planned_and_made" {
  assert {
    condition     = yamldecode(output.helm_values).redis.url == "rediss-cluster://10.30.0.9:6379"
    error_message = "The chart must be told of Redis."
  }
  assert {
    condition     = module.redis.redis_user == "default" && try([for one in yamldecode(output.helm_values).extraEnv : one.value if one.name == "FANFARE_REDIS__USER"], []) == ["default"]
    error_message = "Redis asks for tokens of IAM, so the chart must be told to log in by them."
  }
  assert {
    condition     = output.redis_ca_pem == "-----BEGIN CERTIFICATE-----" && strcontains(output.gateway_manifests, "Gateway") && strcontains(output.monitoring_manifests, "PodMonitoring")
    error_message = "All that docs/terraform.md applies must be an output."
  }
  assert {
    condition     = output.postgres_address == null
    error_message = "There must be no database unless it is asked for."
  }
}

run "with_a_database" {
  variables {
    postgres                = true
    backend_service_account = "backend@fanfare-test.iam.gserviceaccount.com"
  }
  assert {
    condition     = output.postgres_address != null
    error_message = "There must be a database where it is asked for."
  }
}
