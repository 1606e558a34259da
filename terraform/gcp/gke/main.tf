# An Autopilot cluster over all zones of a region, and what its balancer needs: an address, a certificate,
# a policy of TLS and Cloud Armor. Autopilot brings metrics-server, Gateway API and managed Prometheus.
# For long sessions it is the first choice in Google Cloud: Cloud Run ends each after an hour at most. The
# chart itself is installed by Helm: docs/terraform.md.

locals {
  labels = merge({ application = "fanfare", stack = var.name }, var.labels)

  # A token of IAM is the password and lasts an hour. A container that runs beside the node, and begins
  # before it, writes one anew every 25 minutes.
  token_folder = "/run/redis-token"
  token_file   = "${local.token_folder}/password"
  write_tokens = join("\n", [
    # A shell that is the first process of its container ends at once only where it is told how.
    "trap 'exit 0' TERM",
    "umask 077",
    "write() { gcloud auth print-access-token > ${local.token_folder}/next && mv ${local.token_folder}/next ${local.token_file}; }",
    "until write; do sleep 1; done",
    "while :; do sleep 1500 & wait $!; until write; do sleep 5; done; done",
  ])
  iam_values = {
    extraEnv = [
      { name = "FANFARE_REDIS__USER", value = "default" },
      { name = "FANFARE_REDIS__PASSWORD_FILE", value = local.token_file },
    ]
    extraVolumes = [
      { name = "redis-token", emptyDir = { medium = "Memory", sizeLimit = "16Mi" } },
      { name = "gcloud", emptyDir = { sizeLimit = "64Mi" } },
    ]
    extraVolumeMounts = [{ name = "redis-token", mountPath = local.token_folder, readOnly = true }]
    extraInitContainers = [{
      name          = "redis-token"
      image         = var.token_image
      restartPolicy = "Always"
      command       = ["sh", "-c", local.write_tokens]
      env           = [{ name = "CLOUDSDK_CONFIG", value = "/tmp/gcloud" }, { name = "HOME", value = "/tmp" }]
      startupProbe  = { exec = { command = ["test", "-s", local.token_file] }, periodSeconds = 1, failureThreshold = 60 }
      resources     = { requests = { cpu = "50m", memory = "256Mi" }, limits = { memory = "256Mi" } }
      securityContext = {
        allowPrivilegeEscalation = false
        readOnlyRootFilesystem   = true
        capabilities             = { drop = ["ALL"] }
      }
      volumeMounts = [
        { name = "redis-token", mountPath = local.token_folder },
        { name = "gcloud", mountPath = "/tmp" },
      ]
    }]
  }
}

resource "google_service_account" "machines" {
  project      = var.project
  account_id   = "${var.name}-gke"
  display_name = "Machines of GKE of ${var.name}"
}

resource "google_project_iam_member" "machines" {
  for_each = toset(["roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"])

  project = var.project
  role    = each.key
  member  = google_service_account.machines.member
}

resource "google_container_cluster" "this" {
  #checkov:skip=CKV_GCP_65:Groups of Google Workspace are the caller's; rights are given by IAM
  #checkov:skip=CKV_GCP_66:Which images may run is the caller's policy, of the whole project
  #checkov:skip=CKV_GCP_69:Autopilot has the metadata server of GKE always
  #checkov:skip=CKV_GCP_12:Autopilot has network policies always (Dataplane V2)
  #checkov:skip=CKV_GCP_21:It has labels, made of variables
  #checkov:skip=CKV_GCP_13:Certificates for clients are off in every version that is offered
  project             = var.project
  name                = var.name
  location            = var.region
  description         = "Fanfare, ${var.name}"
  enable_autopilot    = true
  network             = var.network_id
  subnetwork          = var.subnetwork_id
  deletion_protection = var.deletion_protection
  resource_labels     = local.labels

  enable_intranode_visibility = true

  ip_allocation_policy {
    cluster_secondary_range_name  = var.pods_range_name
    services_secondary_range_name = var.services_range_name
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = length(var.authorized_networks) == 0
    master_ipv4_cidr_block  = var.control_plane_cidr
  }

  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.authorized_networks

      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }

  release_channel {
    channel = var.release_channel
  }

  gateway_api_config {
    channel = "CHANNEL_STANDARD"
  }

  cluster_autoscaling {
    auto_provisioning_defaults {
      service_account = google_service_account.machines.email
      oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    }
  }

  database_encryption {
    state    = var.kms_key_id == null ? "DECRYPTED" : "ENCRYPTED"
    key_name = var.kms_key_id
  }

  maintenance_policy {
    recurring_window {
      start_time = "2026-01-03T02:00:00Z"
      end_time   = "2026-01-03T06:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }
  }
}

# The nodes' own identity: pods of the chart's service account are this account.
resource "google_service_account" "nodes" {
  project      = var.project
  account_id   = "${var.name}-nodes"
  display_name = "Nodes of Fanfare, ${var.name}"
}

resource "google_service_account_iam_member" "nodes" {
  service_account_id = google_service_account.nodes.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_namespace}/fanfare]"
}

resource "google_compute_global_address" "this" {
  project = var.project
  name    = var.name
}

resource "google_compute_ssl_policy" "this" {
  project         = var.project
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_certificate_manager_dns_authorization" "this" {
  project = var.project
  name    = var.name
  domain  = var.domain
  labels  = local.labels
}

resource "google_certificate_manager_certificate" "this" {
  project = var.project
  name    = var.name
  labels  = local.labels

  managed {
    domains            = [var.domain]
    dns_authorizations = [google_certificate_manager_dns_authorization.this.id]
  }
}

resource "google_certificate_manager_certificate_map" "this" {
  project = var.project
  name    = var.name
  labels  = local.labels
}

resource "google_certificate_manager_certificate_map_entry" "this" {
  project      = var.project
  name         = var.name
  map          = google_certificate_manager_certificate_map.this.name
  hostname     = var.domain
  certificates = [google_certificate_manager_certificate.this.id]
  labels       = local.labels
}
