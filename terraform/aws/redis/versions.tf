terraform {
  # Validations that look at more than one variable came with 1.9.
  required_version = ">= 1.9, < 2.0"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Checked against the schemas of 6.25.0: older ones lack arguments that are used here.
      version = ">= 6.25, < 7.0"
    }
  }
}
