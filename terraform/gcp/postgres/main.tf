# PostgreSQL, off unless asked for: in two zones, by TLS alone, with logins of IAM and no password.

locals {
  labels = merge({ application = "fanfare", stack = var.name }, var.labels)
}

resource "google_sql_database_instance" "primary" {
  #checkov:skip=CKV_GCP_6:ENCRYPTED_ONLY refuses whoever comes without TLS; clients log in by IAM and have no certificates
  #checkov:skip=CKV_GCP_79:The version is the caller's choice (engine_version); the default is the newest here
  #checkov:skip=CKV2_GCP_13:A line for each statement costs more than it tells; query insights have the durations
  count = var.enabled ? 1 : 0

  project             = var.project
  region              = var.region
  name                = "${var.name}-postgres"
  database_version    = "POSTGRES_${var.engine_version}"
  deletion_protection = var.deletion_protection
  encryption_key_name = var.kms_key_id

  settings {
    tier                        = var.tier
    edition                     = "ENTERPRISE"
    availability_type           = "REGIONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = var.storage_gb
    disk_autoresize             = true
    disk_autoresize_limit       = var.storage_gb * 10
    deletion_protection_enabled = var.deletion_protection
    user_labels                 = local.labels

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network_id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      start_time                     = "01:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = var.backup_days
      }
    }

    maintenance_window {
      day          = 7
      hour         = 3
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled = true
    }

    database_flags {
      name  = "cloudsql.iam_authentication"
      value = "on"
    }
    database_flags {
      name  = "cloudsql.enable_pgaudit"
      value = "on"
    }
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }
    database_flags {
      name  = "log_connections"
      value = "on"
    }
    database_flags {
      name  = "log_disconnections"
      value = "on"
    }
    database_flags {
      name  = "log_duration"
      value = "off"
    }
    database_flags {
      name  = "log_hostname"
      value = "on"
    }
    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
    database_flags {
      name  = "log_min_duration_statement"
      value = "-1"
    }
    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }
    database_flags {
      name  = "log_min_messages"
      value = "warning"
    }
    database_flags {
      name  = "log_statement"
      value = "ddl"
    }
    database_flags {
      name  = "log_temp_files"
      value = "0"
    }
  }

  lifecycle {
    # The disk grows by itself; what it has grown to is not a change.
    ignore_changes = [settings[0].disk_size]

    # Only by this is it made after the connection: a validation of a variable makes nothing wait.
    precondition {
      condition     = var.private_services_id != ""
      error_message = "private_services_id must not be empty: without the connection Cloud SQL cannot come into the network."
    }
  }
}

resource "google_sql_database_instance" "replica" {
  #checkov:skip=CKV_GCP_14:A replica has the primary's backups
  #checkov:skip=CKV_GCP_6:ENCRYPTED_ONLY refuses whoever comes without TLS; clients log in by IAM and have no certificates
  #checkov:skip=CKV_GCP_79:The version is that of the primary
  count = var.enabled ? var.read_replicas : 0

  project              = var.project
  region               = var.region
  name                 = "${var.name}-postgres-read-${count.index}"
  database_version     = google_sql_database_instance.primary[0].database_version
  master_instance_name = google_sql_database_instance.primary[0].name
  deletion_protection  = var.deletion_protection
  encryption_key_name  = var.kms_key_id

  settings {
    tier              = var.tier
    edition           = "ENTERPRISE"
    availability_type = "ZONAL"
    disk_type         = "PD_SSD"
    disk_autoresize   = true
    user_labels       = local.labels

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network_id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    dynamic "database_flags" {
      for_each = google_sql_database_instance.primary[0].settings[0].database_flags

      content {
        name  = database_flags.value.name
        value = database_flags.value.value
      }
    }
  }
}

resource "google_sql_database" "fanfare" {
  count = var.enabled ? 1 : 0

  project  = var.project
  instance = google_sql_database_instance.primary[0].name
  name     = "fanfare"
}

resource "google_sql_user" "client" {
  for_each = var.enabled ? var.client_service_accounts : {}

  project  = var.project
  instance = google_sql_database_instance.primary[0].name
  # PostgreSQL's names may not be as long as an address; Cloud SQL leaves this end away.
  name = trimsuffix(each.value, ".gserviceaccount.com")
  type = "CLOUD_IAM_SERVICE_ACCOUNT"
}
