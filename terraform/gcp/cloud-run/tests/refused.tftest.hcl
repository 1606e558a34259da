# Values that cannot work, each refused by the variable that has it.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = { member = "serviceAccount:nodes@fanfare-test.iam.gserviceaccount.com" }
  }
}

variables {
  project       = "fanfare-test"
  region        = "europe-west3"
  network_id    = "projects/fanfare-test/global/networks/fanfare"
  subnetwork_id = "projects/fanfare-test/regions/europe-west3/subnetworks/fanfare"
  image         = "europe-docker.pkg.dev/fanfare-test/fanfare/fanfare:0.1.0"
  domain        = "live.example.com"
  redis_url     = "rediss-cluster://10.30.0.9:6379"
  redis_ca_pem  = "-----BEGIN CERTIFICATE-----"
  secrets       = { api_keys = "fanfare-api-keys", hmac_secret = "fanfare-hmac" }
}

run "memory_that_its_cpu_has_not_is_refused" {
  command = plan
  variables {
    cpu    = 1
    memory = 32768
  }
  expect_failures = [var.memory]
}

run "memory_below_what_its_cpu_has_is_refused" {
  command = plan
  variables {
    cpu    = 8
    memory = 2048
  }
  expect_failures = [var.memory]
}

run "parts_of_an_instance_is_refused" {
  command = plan
  variables {
    nodes_max = 7.5
  }
  expect_failures = [var.nodes_max]
}

run "one_name_for_all_nodes_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_SERVER__NODE_ID = "fanfare-0" }
  }
  expect_failures = [var.extra_environment]
}

run "the_size_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_SIZE = "large" }
  }
  expect_failures = [var.extra_environment]
}

run "a_delay_of_the_drain_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_DRAIN__DELAY_MS = "9000" }
  }
  expect_failures = [var.extra_environment]
}

run "another_time_for_close_frames_is_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_SESSION__CLOSE_TIMEOUT_MS = "9000" }
  }
  expect_failures = [var.extra_environment]
}

run "headers_in_plain_is_refused" {
  command = plan
  variables {
    extra_environment = { OTEL_EXPORTER_OTLP_HEADERS = "authorization=key" }
  }
  expect_failures = [var.extra_environment]
}

run "a_login_in_a_url_is_refused" {
  command = plan
  variables {
    extra_environment = { OTEL_EXPORTER_OTLP_ENDPOINT = "https://user:key@collector.example.com" }
  }
  expect_failures = [var.extra_environment]
}

run "a_plain_further_secret_is_refused" {
  command = plan
  variables {
    secret_environment = { FANFARE_TELEMETRY__HEADERS = "authorization=key" }
  }
  expect_failures = [var.secret_environment]
}

run "a_queue_that_is_too_small_is_refused" {
  command = plan
  variables {
    nodes_max      = 100
    queue_capacity = 50000
  }
  expect_failures = [var.queue_capacity]
}

run "a_password_in_the_url_is_refused" {
  command = plan
  variables {
    redis_url = "rediss://fanfare:secret@10.30.0.9:6379"
  }
  expect_failures = [var.redis_url]
}

run "shards_without_tls_are_refused" {
  command = plan
  variables {
    extra_environment = { FANFARE_REDIS__SHARDS = "rediss://a:6379,redis://b:6379" }
  }
  expect_failures = [var.extra_environment]
}
