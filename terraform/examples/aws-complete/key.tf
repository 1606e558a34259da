# One key for everything that is kept. The services below use it in this account and region alone.

data "aws_caller_identity" "current" {}

resource "aws_kms_key" "this" {
  description             = "Everything that ${local.name} keeps"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Account"
        Effect    = "Allow"
        Action    = "kms:*"
        Resource  = "*"
        Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:root" }
      },
      {
        Sid    = "Services"
        Effect = "Allow"
        Action = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        # The policy of a key speaks of this key alone, whatever stands here.
        Resource = "*"
        Principal = {
          Service = ["logs.${var.region}.amazonaws.com", "cloudwatch.amazonaws.com", "aps.amazonaws.com"]
        }
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
      },
    ]
  })
}
