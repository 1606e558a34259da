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

  # From SIGTERM to exit, all deadlines of the node added, as src/node/stop_time.rs does it and
  # `fanfare config show` prints it (stop.longest_s). Sessions are told over half of the window, or as long
  # as their number takes, and have a quarter of it to go. Then twice the last of a session, ten seconds to
  # give back what is in Redis, calls of the API, twice the commands to Redis, the collector (3 s), the
  # runtime (2 s) and the log (1 s). tests/stops.json has cases that both must say the same of.
  redis_commands_ms = 2 * var.redis_timeouts.command_ms + 1000
  stop_longest_s = ceil((
    var.drain.delay_ms
    + max(var.drain.window_ms / 2, floor(local.connections_max * 1000 / var.drain.sessions_per_s))
    + var.drain.window_ms / 4
    + 2 * (var.drain.commands_timeout_ms + var.close_timeout_ms)
    + 10000
    + max(10000, local.redis_commands_ms)
    + 2 * local.redis_commands_ms
    + 6000
  ) / 1000)

  # Entries of priority low are refused from 70 % of the capacity on. What the nodes scale by must fit below.
  queue_capacity_min = ceil(var.queue_pressure_target * var.nodes_max / 0.7)
  queue_capacity = coalesce(var.queue_capacity, max(local.queue_capacity_min, {
    small      = 1000
    medium     = 50000
    large      = 100000
    enterprise = 500000
  }[var.size]))

  # What Fargate has for each cpu, and what a size needs at least: the requests of helm/fanfare.
  memories = try({
    256   = [512, 1024, 2048]
    512   = range(1024, 4097, 1024)
    1024  = range(2048, 8193, 1024)
    2048  = range(4096, 16385, 1024)
    4096  = range(8192, 30721, 1024)
    8192  = range(16384, 61441, 4096)
    16384 = range(32768, 122881, 8192)
  }[tostring(var.cpu)], [])
  memory_min = { small = 512, medium = 1024, large = 2048, enterprise = 4096 }

  # What nodes tell CloudWatch has this namespace, and the name of the stack as dimension.
  metric_namespace = "Fanfare"

  has_password   = var.redis_password != null
  password_file  = "/run/redis/password"
  kms_statements = var.kms_key_arn == null ? [] : [{ Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.kms_key_arn] }]

  # A setting in extra_environment would be passed over, or be the same on every node where it must differ.
  own_names = [
    "FANFARE_ENV", "FANFARE_SIZE", "FANFARE_SERVER__LISTEN", "FANFARE_API__LISTEN", "FANFARE_METRICS__LISTEN",
    "FANFARE_SERVER__CONNECTIONS_MAX", "FANFARE_SERVER__NODE_ID", "FANFARE_QUEUE__CAPACITY",
    "FANFARE_REDIS__URL", "FANFARE_REDIS__USER", "FANFARE_REDIS__PASSWORD_FILE",
    "FANFARE_REDIS__COMMAND_TIMEOUT_MS", "FANFARE_REDIS__LEASE_MS", "FANFARE_SESSION__CLOSE_TIMEOUT_MS",
    "FANFARE_DRAIN__WINDOW_MS", "FANFARE_DRAIN__SESSIONS_PER_S", "FANFARE_DRAIN__DELAY_MS", "FANFARE_DRAIN__COMMANDS_TIMEOUT_MS",
    "FANFARE_TELEMETRY__EMF_NAMESPACE", "FANFARE_TELEMETRY__SERVICE_NAME", "OTEL_SERVICE_NAME",
  ]
  secret_names = ["FANFARE_API__KEYS", "FANFARE_AUTH__HMAC_SECRET", "FANFARE_API_KEY", "FANFARE_TOKEN"]

  environment = merge(
    var.extra_environment,
    {
      FANFARE_ENV                        = var.environment
      FANFARE_SIZE                       = var.size
      FANFARE_SERVER__LISTEN             = "0.0.0.0:${local.port.http}"
      FANFARE_API__LISTEN                = "0.0.0.0:${local.port.api}"
      FANFARE_METRICS__LISTEN            = "0.0.0.0:${local.port.metrics}"
      FANFARE_SERVER__CONNECTIONS_MAX    = tostring(local.connections_max)
      FANFARE_QUEUE__CAPACITY            = tostring(local.queue_capacity)
      FANFARE_REDIS__URL                 = var.redis_url
      FANFARE_REDIS__COMMAND_TIMEOUT_MS  = tostring(var.redis_timeouts.command_ms)
      FANFARE_REDIS__LEASE_MS            = tostring(var.redis_timeouts.lease_ms)
      FANFARE_SESSION__CLOSE_TIMEOUT_MS  = tostring(var.close_timeout_ms)
      FANFARE_DRAIN__WINDOW_MS           = tostring(var.drain.window_ms)
      FANFARE_DRAIN__SESSIONS_PER_S      = tostring(var.drain.sessions_per_s)
      FANFARE_DRAIN__DELAY_MS            = tostring(var.drain.delay_ms)
      FANFARE_DRAIN__COMMANDS_TIMEOUT_MS = tostring(var.drain.commands_timeout_ms)
      FANFARE_TELEMETRY__EMF_NAMESPACE   = local.metric_namespace
      FANFARE_TELEMETRY__SERVICE_NAME    = var.name
    },
    local.has_password ? { FANFARE_REDIS__PASSWORD_FILE = local.password_file } : {},
    var.redis_user == null ? {} : { FANFARE_REDIS__USER = var.redis_user },
  )

  # A secret's ARN, without the field of it that valueFrom may name.
  secret_arns = [
    for value in compact(concat([var.secrets.api_keys, var.secrets.hmac_secret, var.redis_password], values(var.secret_environment))) :
    join(":", slice(split(":", value), 0, min(7, length(split(":", value)))))
  ]
}
