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

run "the_gateway" {
  assert {
    condition = (
      google_cloud_run_v2_service.this["gateway"].template[0].timeout == "3600s" &&
      google_cloud_run_v2_service.this["gateway"].template[0].max_instance_request_concurrency == 1000 &&
      google_cloud_run_v2_service.this["gateway"].template[0].session_affinity
    )
    error_message = "Sessions must live as long as Cloud Run lets them, a thousand of them in an instance."
  }
  assert {
    condition     = google_cloud_run_v2_service.this["gateway"].template[0].containers[0].ports[0].container_port == 8080 && !google_cloud_run_v2_service.this["gateway"].template[0].containers[0].resources[0].cpu_idle
    error_message = "The gateway must listen on 8080 and have CPU always."
  }
  assert {
    condition = alltrue([
      for service in google_cloud_run_v2_service.this :
      service.template[0].containers[0].liveness_probe[0].http_get[0].path == "/health/live" && service.template[0].containers[0].startup_probe[0].http_get[0].path == "/health/ready"
    ])
    error_message = "Life must be asked at /health/live: by /health/ready every instance would begin anew while Redis is away."
  }
  assert {
    condition     = length(setsubtract([for env in google_cloud_run_v2_service.this["gateway"].template[0].containers[0].env : env.name if length(env.value_source) == 0], local.own_names)) == 0
    error_message = "What the module sets must be refused in extra_environment."
  }
  assert {
    condition = { for name, service in google_cloud_run_v2_service.this : name => [service.template[0].scaling[0].min_instance_count, service.template[0].scaling[0].max_instance_count] } == {
      gateway = [3, 30], api = [2, 10]
    }
    error_message = "There must be at least three instances of the gateway and two for the API at any time."
  }
  assert {
    condition = {
      for env in google_cloud_run_v2_service.this["gateway"].template[0].containers[0].env : env.name => env.value if length(env.value_source) == 0
      } == {
      FANFARE_ENV                        = "production"
      FANFARE_SIZE                       = "medium"
      FANFARE_SERVER__LISTEN             = "0.0.0.0:8080"
      FANFARE_SERVER__CONNECTIONS_MAX    = "1000"
      FANFARE_QUEUE__CAPACITY            = "50000"
      FANFARE_REDIS__URL                 = "rediss-cluster://10.30.0.9:6379"
      FANFARE_REDIS__USER                = "default"
      FANFARE_REDIS__PASSWORD_FILE       = "/run/redis/password"
      FANFARE_REDIS__TLS_CA_FILE         = "/run/redis-ca/ca.pem"
      FANFARE_DRAIN__WINDOW_MS           = "6000"
      FANFARE_DRAIN__DELAY_MS            = "0"
      FANFARE_DRAIN__COMMANDS_TIMEOUT_MS = "1000"
      FANFARE_SESSION__CLOSE_TIMEOUT_MS  = "1000"
    }
    error_message = "The node's variables are not those of docs/configuration.md."
  }
  assert {
    condition = toset([
      for env in google_cloud_run_v2_service.this["gateway"].template[0].containers[0].env : env.name if length(env.value_source) == 1
    ]) == toset(["FANFARE_API__KEYS", "FANFARE_AUTH__HMAC_SECRET"])
    error_message = "Secrets must come from Secret Manager, by the names of docs/configuration.md."
  }
}

run "the_api_is_inside_alone" {
  assert {
    condition     = google_cloud_run_v2_service.this["api"].ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY" && google_cloud_run_v2_service.this["gateway"].ingress == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    error_message = "The API must not be reached from outside, and the gateway only through the balancer."
  }
  assert {
    condition = {
      for env in google_cloud_run_v2_service.this["api"].template[0].containers[0].env : env.name => env.value if endswith(env.name, "__LISTEN")
    } == { FANFARE_SERVER__LISTEN = "none", FANFARE_API__LISTEN = "0.0.0.0:8081" }
    error_message = "Nodes for the API must take no sessions."
  }
  assert {
    condition     = alltrue([for env in google_cloud_run_v2_service.this["api"].template[0].containers[0].env : !contains(["FANFARE_SERVER__CONNECTIONS_MAX", "FANFARE_DRAIN__WINDOW_MS", "FANFARE_AUTH__HMAC_SECRET"], env.name)])
    error_message = "A node without sessions refuses to start with connections_max, has nobody to send away, and needs no key for tokens."
  }
  assert {
    condition     = google_cloud_run_v2_service.this["api"].template[0].containers[0].ports[0].container_port == 8081 && google_cloud_run_v2_service.this["api"].template[0].containers[0].liveness_probe[0].http_get[0].port == 8081
    error_message = "The API must listen on 8081, and be asked there."
  }
}

run "each_service_reads_its_own_secrets" {
  variables {
    secret_environment = { FANFARE_TELEMETRY__HEADERS = "fanfare-headers" }
  }
  assert {
    condition = { for key, member in google_secret_manager_secret_iam_member.nodes : key => member.secret_id } == {
      "gateway-FANFARE_API__KEYS"          = "fanfare-api-keys"
      "gateway-FANFARE_AUTH__HMAC_SECRET"  = "fanfare-hmac"
      "gateway-FANFARE_TELEMETRY__HEADERS" = "fanfare-headers"
      "api-FANFARE_API__KEYS"              = "fanfare-api-keys"
      "api-FANFARE_TELEMETRY__HEADERS"     = "fanfare-headers"
    }
    error_message = "Nodes for the API must not be able to read the key for tokens."
  }
  assert {
    condition     = google_cloud_run_v2_service.this["gateway"].template[0].service_account == google_service_account.nodes.email && google_cloud_run_v2_service.this["api"].template[0].service_account == google_service_account.api.email
    error_message = "Each service must have its own identity."
  }
}

run "tls_alone" {
  assert {
    condition     = google_compute_ssl_policy.this.min_tls_version == "TLS_1_2" && google_compute_url_map.redirect.default_url_redirect[0].https_redirect
    error_message = "TLS below 1.2 must be refused, and plain HTTP sent on."
  }
  assert {
    condition     = google_compute_target_https_proxy.gateway.ssl_policy == google_compute_ssl_policy.this.id
    error_message = "The balancer must go by the policy of TLS."
  }
}

run "tokens_of_iam" {
  assert {
    condition     = length(google_cloud_run_v2_service.this["gateway"].template[0].containers) == 2 && google_cloud_run_v2_service.this["gateway"].template[0].containers[0].depends_on[0] == "redis-token"
    error_message = "The node must start after the container that writes its tokens."
  }
  assert {
    condition     = strcontains(google_cloud_run_v2_service.this["gateway"].template[0].containers[1].command[2], "/run/redis/password")
    error_message = "Tokens must be written where the node reads its password."
  }
  assert {
    condition     = can(regex("while sleep 1500; do", google_cloud_run_v2_service.this["gateway"].template[0].containers[1].command[2]))
    error_message = "A token lasts an hour, so it must be written anew every 25 minutes."
  }
}

run "without_iam_and_ca" {
  variables {
    redis_iam_auth = false
    redis_ca_pem   = null
  }
  assert {
    condition     = length(google_cloud_run_v2_service.this["gateway"].template[0].containers) == 1 && length(google_cloud_run_v2_service.this["gateway"].template[0].volumes) == 0 && length(google_secret_manager_secret.ca) == 0
    error_message = "What is off must not be made."
  }
}

run "a_drain_over_what_cloud_run_waits_is_refused" {
  command = plan
  variables {
    drain_window_s = 30
  }
  expect_failures = [var.drain_window_s]
}

run "no_domain_is_refused" {
  command = plan
  variables {
    domain = ""
  }
  expect_failures = [var.domain]
}

run "redis_without_tls_is_refused" {
  command = plan
  variables {
    redis_url = "redis://10.30.0.9:6379"
  }
  expect_failures = [var.redis_url]
}

run "one_zone_and_one_instance_are_refused" {
  command = plan
  variables {
    region    = "europe-west3-a"
    nodes_min = 1
  }
  expect_failures = [var.region, var.nodes_min]
}

run "more_than_cloud_run_gives_is_refused" {
  command = plan
  variables {
    connections_max   = 5000
    session_timeout_s = 86400
  }
  expect_failures = [var.connections_max, var.session_timeout_s]
}
