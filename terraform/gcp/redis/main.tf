# Valkey in cluster mode, in several zones, by TLS alone (docs/redis.md).

locals {
  labels = merge({ application = "fanfare", stack = var.name }, var.labels)
  port   = 6379

  # Everything that Memorystore tells of where it is found.
  endpoint = google_memorystore_instance.this.endpoints[0].connections[0].psc_auto_connection[0].ip_address
}

resource "google_memorystore_instance" "this" {
  project     = var.project
  location    = var.region
  instance_id = "${var.name}-redis"
  labels      = local.labels

  mode           = "CLUSTER"
  engine_version = var.engine_version
  node_type      = var.node_type
  shard_count    = var.shards
  replica_count  = var.replicas

  transit_encryption_mode     = "SERVER_AUTHENTICATION"
  authorization_mode          = var.iam_auth ? "IAM_AUTH" : "AUTH_DISABLED"
  kms_key                     = var.kms_key_id
  deletion_protection_enabled = var.deletion_protection

  engine_configs = merge(
    {
      # Evicting keys would lose messages without a word; refusing writes is told to whoever publishes.
      "maxmemory-policy"  = "noeviction"
      "maxmemory-clients" = "${var.client_memory_percent}%"
    },
    var.stream_node_max_bytes == null ? {} : { "stream-node-max-bytes" = tostring(var.stream_node_max_bytes) },
  )

  desired_auto_created_endpoints {
    network    = var.network_id
    project_id = var.project
  }

  zone_distribution_config {
    mode = "MULTI_ZONE"
  }

  persistence_config {
    mode = "AOF"

    aof_config {
      append_fsync = "EVERY_SEC"
    }
  }

  dynamic "automated_backup_config" {
    for_each = var.backup_retention_days > 0 ? [var.backup_retention_days] : []

    content {
      retention = "${automated_backup_config.value * 86400}s"

      fixed_frequency_schedule {
        start_time {
          hours = 2
        }
      }
    }
  }

  maintenance_policy {
    weekly_maintenance_window {
      day = "SUNDAY"

      start_time {
        hours = 3
      }
    }
  }

  lifecycle {
    precondition {
      condition     = var.service_connection_policy_id != ""
      error_message = "service_connection_policy_id must not be empty: without a policy Memorystore cannot come into the network."
    }
  }
}

resource "google_project_iam_member" "clients" {
  for_each = var.iam_auth ? var.client_members : {}

  project = var.project
  role    = "roles/memorystore.dbConnectionUser"
  member  = each.value

  condition {
    title      = "${var.name}-redis"
    expression = "resource.name == \"projects/${var.project}/locations/${var.region}/instances/${var.name}-redis\""
  }
}
