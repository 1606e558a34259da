mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/monitoring" }
  }
}

variables {
  enabled    = true
  vpc_id     = "vpc-1"
  subnet_ids = ["subnet-a", "subnet-b"]
}

run "off_makes_nothing" {
  variables {
    enabled       = false
    read_replicas = 2
    client_security_group_ids = {
      backend = "sg-backend"
    }
  }
  assert {
    condition     = output.endpoint == null && length(output.replica_endpoints) == 0 && output.security_group_id == null && output.password_secret_arn == null
    error_message = "Without enabled there must be no database."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.clients) == 0 && length(aws_iam_role.monitoring) == 0
    error_message = "Without enabled there must be nothing around a database either."
  }
}

run "safe_by_default" {
  assert {
    condition = (
      aws_db_instance.primary[0].multi_az && aws_db_instance.primary[0].storage_encrypted &&
      !aws_db_instance.primary[0].publicly_accessible && aws_db_instance.primary[0].deletion_protection &&
      aws_db_instance.primary[0].manage_master_user_password && !aws_db_instance.primary[0].skip_final_snapshot
    )
    error_message = "The primary must stand in two zones, be encrypted, private, protected, and have its password from RDS."
  }
  assert {
    condition     = { for parameter in aws_db_parameter_group.this[0].parameter : parameter.name => parameter.value }["rds.force_ssl"] == "1"
    error_message = "The database must refuse whoever comes without TLS."
  }
}

run "replicas_and_clients" {
  variables {
    read_replicas             = 2
    client_security_group_ids = { backend = "sg-backend" }
  }
  assert {
    condition     = length(aws_db_instance.replica) == 2 && aws_db_instance.replica[1].replicate_source_db == aws_db_instance.primary[0].identifier
    error_message = "There must be two replicas of the primary."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.clients["backend"].from_port == 5432
    error_message = "Clients must reach the port 5432."
  }
}

run "one_subnet_is_refused" {
  command = plan
  variables {
    subnet_ids = ["subnet-a", "subnet-a"]
  }
  expect_failures = [var.subnet_ids]
}

run "no_backups_is_refused" {
  command = plan
  variables {
    backup_days = 0
  }
  expect_failures = [var.backup_days]
}
