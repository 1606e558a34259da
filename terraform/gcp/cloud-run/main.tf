# Two services over one Redis, because a service of Cloud Run has one port: the gateway, to which clients
# connect through a balancer, and nodes for the API alone, which backends reach from inside.

locals {
  labels = merge({ application = "fanfare", stack = var.name }, var.labels)

  port = {
    http = 8080
    api  = 8081
  }

  services = {
    gateway = {
      name        = var.name
      port        = local.port.http
      min         = var.nodes_min
      max         = var.nodes_max
      concurrency = var.connections_max
      timeout_s   = var.session_timeout_s
      affinity    = true
      # Clients come through the balancer, where TLS, certificate and Cloud Armor are.
      ingress = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
      own = {
        FANFARE_SERVER__LISTEN          = "0.0.0.0:${local.port.http}"
        FANFARE_SERVER__CONNECTIONS_MAX = tostring(var.connections_max)
        FANFARE_DRAIN__WINDOW_MS        = tostring(var.drain_window_s * 1000)
      }
      secrets = concat(["FANFARE_API__KEYS", "FANFARE_AUTH__HMAC_SECRET"], keys(var.secret_environment))
    }
    api = {
      name        = "${var.name}-api"
      port        = local.port.api
      min         = 2
      max         = var.api_nodes_max
      concurrency = 80
      timeout_s   = 60
      affinity    = false
      ingress     = "INGRESS_TRAFFIC_INTERNAL_ONLY"
      own         = { FANFARE_SERVER__LISTEN = "none", FANFARE_API__LISTEN = "0.0.0.0:${local.port.api}" }
      # It takes no sessions, so it needs no key for tokens.
      secrets = concat(["FANFARE_API__KEYS"], keys(var.secret_environment))
    }
  }

  password_file = "/run/redis/password"
  ca_file       = "/run/redis-ca/ca.pem"
  has_ca        = var.redis_ca_pem != null

  # Entries of priority low are refused from 70 % of the capacity on.
  queue_capacity_min = ceil(1000 * var.nodes_max / 0.7)
  queue_capacity     = coalesce(var.queue_capacity, max(local.queue_capacity_min, 50000))

  # A setting in extra_environment would be passed over, or be the same on every node where it must differ.
  own_names = [
    "FANFARE_ENV", "FANFARE_SIZE", "FANFARE_SERVER__LISTEN", "FANFARE_API__LISTEN", "FANFARE_SERVER__CONNECTIONS_MAX",
    "FANFARE_SERVER__NODE_ID", "FANFARE_QUEUE__CAPACITY", "FANFARE_REDIS__URL", "FANFARE_REDIS__USER",
    "FANFARE_REDIS__PASSWORD_FILE", "FANFARE_REDIS__TLS_CA_FILE", "FANFARE_SESSION__CLOSE_TIMEOUT_MS",
    "FANFARE_DRAIN__WINDOW_MS", "FANFARE_DRAIN__DELAY_MS", "FANFARE_DRAIN__COMMANDS_TIMEOUT_MS",
  ]
  secret_names = ["FANFARE_API__KEYS", "FANFARE_AUTH__HMAC_SECRET", "FANFARE_API_KEY", "FANFARE_TOKEN"]

  environment = merge(
    var.extra_environment,
    {
      FANFARE_ENV             = var.environment
      FANFARE_SIZE            = "medium"
      FANFARE_REDIS__URL      = var.redis_url
      FANFARE_QUEUE__CAPACITY = tostring(local.queue_capacity)
      # 10 s from SIGTERM to SIGKILL: half of the window to tell, a quarter to go, 1 s each for commands
      # at the broker and for the answer to a close frame. What a node that is killed then leaves in Redis
      # is cleaned up by the others.
      FANFARE_DRAIN__DELAY_MS            = "0"
      FANFARE_DRAIN__COMMANDS_TIMEOUT_MS = "1000"
      FANFARE_SESSION__CLOSE_TIMEOUT_MS  = "1000"
    },
    var.redis_iam_auth ? { FANFARE_REDIS__USER = "default", FANFARE_REDIS__PASSWORD_FILE = local.password_file } : {},
    local.has_ca ? { FANFARE_REDIS__TLS_CA_FILE = local.ca_file } : {},
  )

  secret_environment = merge(var.secret_environment, {
    FANFARE_API__KEYS         = var.secrets.api_keys
    FANFARE_AUTH__HMAC_SECRET = var.secrets.hmac_secret
  })

  # The port is opened when the first token stands in the file: the node starts after that.
  token_port = 8099
  write_tokens = join("\n", [
    "write() { gcloud auth print-access-token > /run/redis/next && mv /run/redis/next ${local.password_file}; }",
    "until write; do sleep 1; done",
    "mkdir -p /tmp/empty && python3 -m http.server ${local.token_port} --bind 0.0.0.0 --directory /tmp/empty &",
    "while sleep 1500; do until write; do sleep 5; done; done",
  ])
}

resource "google_service_account" "nodes" {
  project      = var.project
  account_id   = "${var.name}-run"
  display_name = "Nodes of Fanfare in Cloud Run, ${var.name}"
}

# Nodes for the API have an account of their own: they may not read the key for tokens.
resource "google_service_account" "api" {
  project      = var.project
  account_id   = "${var.name}-api"
  display_name = "Nodes of Fanfare for the API in Cloud Run, ${var.name}"
}

locals {
  accounts = { gateway = google_service_account.nodes, api = google_service_account.api }
}

resource "google_secret_manager_secret_iam_member" "nodes" {
  for_each = merge([
    for key, service in local.services : { for name in service.secrets : "${key}-${name}" => { service = key, name = name } }
  ]...)

  project   = var.project
  secret_id = local.secret_environment[each.value.name]
  role      = "roles/secretmanager.secretAccessor"
  member    = local.accounts[each.value.service].member
}

resource "google_secret_manager_secret" "ca" {
  count = local.has_ca ? 1 : 0

  project   = var.project
  secret_id = "${var.name}-redis-ca"
  labels    = local.labels

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "ca" {
  count = local.has_ca ? 1 : 0

  secret      = google_secret_manager_secret.ca[0].id
  secret_data = var.redis_ca_pem
}

resource "google_secret_manager_secret_iam_member" "ca" {
  for_each = local.has_ca ? toset(keys(local.services)) : toset([])

  project   = var.project
  secret_id = google_secret_manager_secret.ca[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.accounts[each.key].member
}

resource "google_cloud_run_v2_service" "this" {
  for_each = local.services

  project             = var.project
  name                = each.value.name
  location            = var.region
  ingress             = each.value.ingress
  deletion_protection = var.deletion_protection
  labels              = local.labels
  # Who may do what is asked by the node: clients show tokens, backends keys.
  invoker_iam_disabled = true

  template {
    service_account                  = local.accounts[each.key].email
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    timeout                          = "${each.value.timeout_s}s"
    max_instance_request_concurrency = each.value.concurrency
    session_affinity                 = each.value.affinity
    labels                           = local.labels

    scaling {
      min_instance_count = each.value.min
      max_instance_count = each.value.max
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"

      network_interfaces {
        network    = var.network_id
        subnetwork = var.subnetwork_id
      }
    }

    containers {
      name       = "fanfare"
      image      = var.image
      args       = ["serve"]
      depends_on = var.redis_iam_auth ? ["redis-token"] : null

      ports {
        container_port = each.value.port
      }

      resources {
        limits = { cpu = tostring(var.cpu), memory = "${var.memory}Mi" }
        # A node has work between requests too: heartbeats, the feed, the queue.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(local.environment, each.value.own)

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = { for name in each.value.secrets : name => local.secret_environment[name] }

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 60

        http_get {
          path = "/health/ready"
          port = each.value.port
        }
      }

      liveness_probe {
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/health/live"
          port = each.value.port
        }
      }

      dynamic "volume_mounts" {
        for_each = var.redis_iam_auth ? [dirname(local.password_file)] : []

        content {
          name       = "redis-token"
          mount_path = volume_mounts.value
        }
      }

      dynamic "volume_mounts" {
        for_each = local.has_ca ? [dirname(local.ca_file)] : []

        content {
          name       = "redis-ca"
          mount_path = volume_mounts.value
        }
      }
    }

    dynamic "containers" {
      for_each = var.redis_iam_auth ? [var.token_image] : []

      content {
        name    = "redis-token"
        image   = containers.value
        command = ["sh", "-c", local.write_tokens]

        resources {
          limits   = { cpu = "1", memory = "512Mi" }
          cpu_idle = false
        }

        startup_probe {
          period_seconds    = 1
          timeout_seconds   = 1
          failure_threshold = 60

          tcp_socket {
            port = local.token_port
          }
        }

        volume_mounts {
          name       = "redis-token"
          mount_path = dirname(local.password_file)
        }
      }
    }

    dynamic "volumes" {
      for_each = var.redis_iam_auth ? ["redis-token"] : []

      content {
        name = volumes.value

        empty_dir {
          medium     = "MEMORY"
          size_limit = "16Mi"
        }
      }
    }

    dynamic "volumes" {
      for_each = google_secret_manager_secret_version.ca

      content {
        name = "redis-ca"

        secret {
          secret = google_secret_manager_secret.ca[0].secret_id

          items {
            path    = basename(local.ca_file)
            version = volumes.value.version
          }
        }
      }
    }
  }

  depends_on = [
    google_secret_manager_secret_iam_member.nodes,
    google_secret_manager_secret_iam_member.ca,
  ]
}
