data "aws_region" "current" {}

locals {
  tags = merge({ Application = "fanfare", Stack = var.name }, var.tags)

  port = {
    http    = 8080
    api     = 8081
    metrics = 9090
  }

  connections_max = coalesce(var.connections_max, {
    small      = 100
    medium     = 1000
    large      = 5000
    enterprise = 10000
  }[var.size])

  # From SIGTERM to exit, all deadlines of the node added. Sessions are told over half of the window, or
  # as long as their number takes, and have a quarter of it to go. What does not depend on [drain], with
  # the defaults of the node: twice 10 s for commands and close frames, 10 s to give back what is in
  # Redis, 10 s for calls of the API, 10 s for Redis' connections, 6 s for telemetry and the log.
  # `fanfare config show` prints the same as stop.longest_s.
  stop_fixed_s = 56
  stop_longest_s = ceil((
    var.drain.delay_ms
    + max(var.drain.window_ms / 2, local.connections_max * 1000 / var.drain.sessions_per_s)
    + var.drain.window_ms / 4
  ) / 1000) + local.stop_fixed_s

  # What nodes tell CloudWatch has this namespace, and the name of the stack as dimension.
  metric_namespace = "Fanfare"

  has_password   = var.redis_password != null
  password_file  = "/run/redis/password"
  kms_statements = var.kms_key_arn == null ? [] : [{ Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.kms_key_arn] }]

  environment = merge(
    var.extra_environment,
    {
      FANFARE_ENV                      = var.environment
      FANFARE_SIZE                     = var.size
      FANFARE_SERVER__LISTEN           = "0.0.0.0:${local.port.http}"
      FANFARE_API__LISTEN              = "0.0.0.0:${local.port.api}"
      FANFARE_METRICS__LISTEN          = "0.0.0.0:${local.port.metrics}"
      FANFARE_SERVER__CONNECTIONS_MAX  = tostring(local.connections_max)
      FANFARE_REDIS__URL               = var.redis_url
      FANFARE_DRAIN__WINDOW_MS         = tostring(var.drain.window_ms)
      FANFARE_DRAIN__SESSIONS_PER_S    = tostring(var.drain.sessions_per_s)
      FANFARE_DRAIN__DELAY_MS          = tostring(var.drain.delay_ms)
      FANFARE_TELEMETRY__EMF_NAMESPACE = local.metric_namespace
      FANFARE_TELEMETRY__SERVICE_NAME  = var.name
    },
    local.has_password ? { FANFARE_REDIS__PASSWORD_FILE = local.password_file } : {},
    var.redis_user == null ? {} : { FANFARE_REDIS__USER = var.redis_user },
  )

  # A secret's ARN, without the field of it that valueFrom may name.
  secret_arns = [
    for value in compact([var.secrets.api_keys, var.secrets.hmac_secret, var.redis_password]) :
    join(":", slice(split(":", value), 0, min(7, length(split(":", value)))))
  ]
}
