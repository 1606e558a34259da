# PostgreSQL, off unless asked for: in two zones, by TLS alone, its password made and kept by RDS.

locals {
  tags  = merge({ Application = "fanfare", Stack = var.name }, var.tags)
  count = var.enabled ? 1 : 0
  port  = 5432
}

resource "aws_db_subnet_group" "this" {
  count = local.count

  name        = "${var.name}-postgres"
  description = "PostgreSQL of ${var.name}"
  subnet_ids  = var.subnet_ids
  tags        = local.tags
}

resource "aws_security_group" "postgres" {
  count = local.count

  name        = "${var.name}-postgres"
  description = "PostgreSQL of ${var.name}: its port, for those who are named"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-postgres" })
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.enabled ? var.client_security_group_ids : {}

  security_group_id            = aws_security_group.postgres[0].id
  description                  = "PostgreSQL from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  tags                         = local.tags
}

resource "aws_db_parameter_group" "this" {
  count = local.count

  name        = "${var.name}-postgres-${var.engine_version}"
  family      = "postgres${var.engine_version}"
  description = "TLS alone, slow statements and changes of tables in the log"
  tags        = local.tags

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role" "monitoring" {
  count = local.count

  name = "${var.name}-postgres-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  count = local.count

  role       = aws_iam_role.monitoring[0].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_db_instance" "primary" {
  #checkov:skip=CKV_AWS_293:Deletion protection is on by default; the switch is for stacks that are thrown away
  #checkov:skip=CKV_AWS_354:The key is the caller's choice (kms_key_arn); without it the service encrypts by its own
  count = local.count

  identifier     = "${var.name}-postgres"
  engine         = "postgres"
  engine_version = var.engine_version
  instance_class = var.instance_class
  db_name        = "fanfare"
  port           = local.port
  username       = "fanfare"
  # RDS makes the password and keeps it in Secrets Manager; Terraform never sees it.
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = var.kms_key_arn
  iam_database_authentication_enabled = true

  allocated_storage     = var.storage_gb
  max_allocated_storage = var.storage_gb * 10
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  multi_az               = true
  db_subnet_group_name   = aws_db_subnet_group.this[0].name
  vpc_security_group_ids = [aws_security_group.postgres[0].id]
  publicly_accessible    = false
  parameter_group_name   = aws_db_parameter_group.this[0].name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period    = var.backup_days
  backup_window              = "01:00-02:00"
  maintenance_window         = "sun:03:00-sun:04:00"
  auto_minor_version_upgrade = true
  copy_tags_to_snapshot      = true
  deletion_protection        = var.deletion_protection
  skip_final_snapshot        = false
  final_snapshot_identifier  = "${var.name}-postgres-final"

  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring[0].arn
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
  tags                            = local.tags
}

resource "aws_db_instance" "replica" {
  #checkov:skip=CKV_AWS_118:Replicas are watched by the primary's dashboards; each second costs once
  #checkov:skip=CKV_AWS_157:A replica in a second zone is another replica: read_replicas
  #checkov:skip=CKV_AWS_293:Deletion protection is on by default; the switch is for stacks that are thrown away
  #checkov:skip=CKV_AWS_354:The key is the caller's choice (kms_key_arn); without it the service encrypts by its own
  count = var.enabled ? var.read_replicas : 0

  identifier          = "${var.name}-postgres-read-${count.index}"
  replicate_source_db = aws_db_instance.primary[0].identifier
  instance_class      = var.instance_class
  port                = local.port

  storage_encrypted      = true
  vpc_security_group_ids = [aws_security_group.postgres[0].id]
  publicly_accessible    = false
  parameter_group_name   = aws_db_parameter_group.this[0].name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  iam_database_authentication_enabled = true
  auto_minor_version_upgrade          = true
  copy_tags_to_snapshot               = true
  deletion_protection                 = var.deletion_protection
  skip_final_snapshot                 = true
  performance_insights_enabled        = true
  performance_insights_kms_key_id     = var.kms_key_arn
  enabled_cloudwatch_logs_exports     = ["postgresql", "upgrade"]
  tags                                = local.tags
}
