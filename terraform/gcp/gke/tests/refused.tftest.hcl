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
  domain        = "live.example.com"
  redis_url     = "rediss-cluster://10.30.0.9:6379"
}

run "a_password_in_the_url_is_refused" {
  command = plan
  variables {
    redis_url = "rediss://fanfare:secret@10.30.0.9:6379"
  }
  expect_failures = [var.redis_url]
}

run "a_lone_sentinel_is_refused" {
  command = plan
  variables {
    redis_url = "rediss-sentinel://10.30.0.9:26379"
  }
  expect_failures = [var.redis_url]
}

run "the_internet_in_halves_is_refused" {
  command = plan
  variables {
    authorized_networks = { a = "0.0.0.0/1", b = "128.0.0.0/1" }
  }
  expect_failures = [var.authorized_networks]
}

run "what_is_no_key_is_refused" {
  command = plan
  variables {
    kms_key_id = "not a key"
  }
  expect_failures = [var.kms_key_id]
}
