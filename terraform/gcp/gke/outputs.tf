output "cluster_name" {
  description = "The cluster: gcloud container clusters get-credentials NAME --region REGION."
  value       = google_container_cluster.this.name
}

output "address" {
  description = "Public address of the balancer: what the domain points to."
  value       = google_compute_global_address.this.address
}

output "certificate_record" {
  description = "The DNS record by which Google believes that the domain is yours."
  value       = google_certificate_manager_dns_authorization.this.dns_resource_record
}

output "nodes_service_account" {
  description = "The nodes' identity: client_members of the module redis."
  value       = google_service_account.nodes.member
}

output "helm_values" {
  description = "Values for the chart, without secrets: terraform output -raw helm_values > values.yaml."
  value = yamlencode(merge({
    size         = var.size
    environment  = "production"
    replicaCount = 3
    redis        = { url = var.redis_url, tls = { existingSecret = "fanfare-redis-ca" } }
    auth         = { existingSecret = "fanfare-auth" }
    api          = { existingSecret = "fanfare-api" }
    gatewayApi   = { enabled = true, parentRefs = [{ name = "fanfare" }], hostnames = [var.domain] }
    # The balancer needs some seconds to know that a node leaves.
    drain = { delayMs = 15000 }
    # Pods are the account that client_members of the module redis lets in.
    serviceAccount = { annotations = { "iam.gke.io/gcp-service-account" = google_service_account.nodes.email } }
  }, [for values in [local.iam_values] : values if var.redis_iam_auth]...))
}

output "monitoring_manifests" {
  description = "What lets managed Prometheus scrape the nodes, which the alert rules of the module observe need: terraform output -raw monitoring_manifests | kubectl apply -f -"
  value = yamlencode({
    apiVersion = "monitoring.googleapis.com/v1"
    kind       = "PodMonitoring"
    metadata   = { name = "fanfare", namespace = var.kubernetes_namespace }
    spec = {
      selector  = { matchLabels = { "app.kubernetes.io/name" = "fanfare", "app.kubernetes.io/component" = "gateway" } }
      endpoints = [{ port = "metrics", interval = "15s" }]
    }
  })
}

output "gateway_manifests" {
  description = "A Gateway with address and certificate, and the policies of its backend: terraform output -raw gateway_manifests | kubectl apply -f -"
  value = join("---\n", [for manifest in [
    {
      apiVersion = "gateway.networking.k8s.io/v1"
      kind       = "Gateway"
      metadata = {
        name        = "fanfare"
        namespace   = var.kubernetes_namespace
        annotations = { "networking.gke.io/certmap" = google_certificate_manager_certificate_map.this.name }
      }
      spec = {
        gatewayClassName = "gke-l7-global-external-managed"
        addresses        = [{ type = "NamedAddress", value = google_compute_global_address.this.name }]
        listeners        = [{ name = "https", protocol = "HTTPS", port = 443 }]
      }
    },
    {
      apiVersion = "networking.gke.io/v1"
      kind       = "GCPGatewayPolicy"
      metadata   = { name = "fanfare", namespace = var.kubernetes_namespace }
      spec = {
        default   = { sslPolicy = google_compute_ssl_policy.this.name }
        targetRef = { group = "gateway.networking.k8s.io", kind = "Gateway", name = "fanfare" }
      }
    },
    {
      apiVersion = "networking.gke.io/v1"
      kind       = "GCPBackendPolicy"
      metadata   = { name = "fanfare", namespace = var.kubernetes_namespace }
      spec = {
        default = {
          # A session ends after so long, so it is a day; while nodes leave, their sessions stay.
          timeoutSec         = 86400
          connectionDraining = { drainingTimeoutSec = 300 }
          securityPolicy     = google_compute_security_policy.this.name
        }
        targetRef = { group = "", kind = "Service", name = "fanfare" }
      }
    },
    {
      apiVersion = "networking.gke.io/v1"
      kind       = "HealthCheckPolicy"
      metadata   = { name = "fanfare", namespace = var.kubernetes_namespace }
      spec = {
        default = {
          checkIntervalSec = 5
          timeoutSec       = 3
          config           = { type = "HTTP", httpHealthCheck = { port = 8080, requestPath = "/health/ready" } }
        }
        targetRef = { group = "", kind = "Service", name = "fanfare" }
      }
    },
  ] : yamlencode(manifest)])
}
