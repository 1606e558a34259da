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

run "closed_to_the_outside_and_over_all_zones" {
  assert {
    condition = (
      google_container_cluster.this.private_cluster_config[0].enable_private_nodes &&
      google_container_cluster.this.private_cluster_config[0].enable_private_endpoint
    )
    error_message = "Unless networks are named, machines and the API server must be reached from inside alone."
  }
  assert {
    condition     = google_container_cluster.this.location == "europe-west3" && google_container_cluster.this.enable_autopilot
    error_message = "The cluster must be regional."
  }
  assert {
    condition     = google_compute_ssl_policy.this.min_tls_version == "TLS_1_2"
    error_message = "TLS below 1.2 must be refused."
  }
}

run "the_door" {
  assert {
    condition     = toset([for rule in google_compute_security_policy.this.rule : rule.action]) == toset(["deny(403)", "throttle", "allow"])
    error_message = "Whoever knocks too often must be turned away, others let in."
  }
  assert {
    condition     = google_certificate_manager_certificate_map_entry.this.hostname == "live.example.com"
    error_message = "The certificate must be for the domain."
  }
}

run "the_manifests_can_be_applied" {
  assert {
    condition     = [for manifest in split("---\n", output.gateway_manifests) : yamldecode(manifest).kind] == ["Gateway", "GCPGatewayPolicy", "GCPBackendPolicy", "HealthCheckPolicy"]
    error_message = "There must be a Gateway and its policies."
  }
  assert {
    condition     = yamldecode(split("---\n", output.gateway_manifests)[2]).spec.default.timeoutSec == 86400 && yamldecode(split("---\n", output.gateway_manifests)[2]).spec.default.connectionDraining.drainingTimeoutSec == 300
    error_message = "Sessions must live for long, and stay while nodes leave."
  }
  assert {
    condition     = yamldecode(split("---\n", output.gateway_manifests)[3]).spec.default.config.httpHealthCheck.port == 8080
    error_message = "Health must be asked on the public port 8080."
  }
  assert {
    condition     = yamldecode(split("---\n", output.gateway_manifests)[3]).spec.default.config.httpHealthCheck.requestPath == "/health/ready"
    error_message = "The balancer must ask /health/ready: here an unready node is only left out, not replaced."
  }
  assert {
    condition     = alltrue([for manifest in slice(split("---\n", output.gateway_manifests), 2, 4) : yamldecode(manifest).spec.targetRef == { group = "", kind = "Service", name = "fanfare" }])
    error_message = "The policies must be those of the chart's Service."
  }
  assert {
    condition = {
      ca   = yamldecode(output.helm_values).redis.tls.existingSecret
      auth = yamldecode(output.helm_values).auth.existingSecret
      api  = yamldecode(output.helm_values).api.existingSecret
    } == { ca = "fanfare-redis-ca", auth = "fanfare-auth", api = "fanfare-api" }
    error_message = "The Secrets must be those that docs/terraform.md has one make."
  }
  assert {
    condition     = yamldecode(output.helm_values).serviceAccount.annotations["iam.gke.io/gcp-service-account"] == google_service_account.nodes.email
    error_message = "Pods must be the account that may log in to Redis."
  }
  assert {
    condition     = !can(yamldecode(output.helm_values).extraInitContainers)
    error_message = "Without logins by IAM nothing writes tokens."
  }
  assert {
    condition     = yamldecode(output.monitoring_manifests).spec == { selector = { matchLabels = { "app.kubernetes.io/name" = "fanfare", "app.kubernetes.io/component" = "gateway" } }, endpoints = [{ port = "metrics", interval = "15s" }] }
    error_message = "Nodes must be scraped on their port for metrics every 15 s, as the rules need it."
  }
  assert {
    condition     = yamldecode(output.helm_values).redis.url == var.redis_url && yamldecode(output.helm_values).gatewayApi.hostnames == ["live.example.com"] && output.nodes_service_account == "serviceAccount:nodes@fanfare-test.iam.gserviceaccount.com"
    error_message = "The chart must be told of Redis, and Redis of the nodes."
  }
}

run "logins_by_iam" {
  variables {
    redis_iam_auth = true
  }
  assert {
    condition = { for one in yamldecode(output.helm_values).extraEnv : one.name => one.value } == {
      FANFARE_REDIS__USER = "default", FANFARE_REDIS__PASSWORD_FILE = "/run/redis-token/password"
    }
    error_message = "The node must log in as default, by the file in which the token stands."
  }
  assert {
    condition = (
      yamldecode(output.helm_values).extraInitContainers[0].restartPolicy == "Always" &&
      strcontains(yamldecode(output.helm_values).extraInitContainers[0].command[2], "while :; do sleep 1500 & wait $!; until write") &&
      strcontains(yamldecode(output.helm_values).extraInitContainers[0].command[2], "/run/redis-token/password") &&
      yamldecode(output.helm_values).extraVolumeMounts[0].mountPath == "/run/redis-token"
    )
    error_message = "A container beside the node must write the token anew every 25 minutes, where the node reads it."
  }
}

run "from_named_networks" {
  variables {
    authorized_networks = { office = "203.0.113.0/24" }
    kms_key_id          = "projects/fanfare-test/locations/europe-west3/keyRings/r/cryptoKeys/k"
  }
  assert {
    condition     = one(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks).cidr_block == "203.0.113.0/24" && !google_container_cluster.this.private_cluster_config[0].enable_private_endpoint
    error_message = "The API server must be reached from the named network."
  }
  assert {
    condition     = google_container_cluster.this.database_encryption[0].state == "ENCRYPTED"
    error_message = "A given key must be used."
  }
}

run "one_zone_is_refused" {
  command = plan
  variables {
    region = "europe-west3-a"
  }
  expect_failures = [var.region]
}

run "no_domain_is_refused" {
  command = plan
  variables {
    domain = ""
  }
  expect_failures = [var.domain]
}

run "bad_cidr_is_refused" {
  command = plan
  variables {
    control_plane_cidr = "172.16.0.0/24"
  }
  expect_failures = [var.control_plane_cidr]
}

run "redis_without_tls_is_refused" {
  command = plan
  variables {
    redis_url = "redis://10.30.0.9:6379"
  }
  expect_failures = [var.redis_url]
}
