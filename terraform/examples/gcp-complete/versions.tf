terraform {
  required_version = ">= 1.9, < 2.0"

  # State has names and addresses, no secrets. Keep it where a team can reach it:
  # backend "gcs" { … }

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
