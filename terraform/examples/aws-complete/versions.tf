terraform {
  required_version = ">= 1.9, < 2.0"

  # State has names and addresses, no secrets. Keep it where a team can reach it:
  # backend "s3" { … }

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25, < 7.0"
    }
  }
}

provider "aws" {
  region = var.region
}
