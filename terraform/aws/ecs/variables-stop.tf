# Whatever the longest stop of a node rests on. All of it is told to the node, also what is as by default.

variable "drain" {
  description = "How a node leaves, as [drain] of docs/configuration.md: over how long its sessions are told to go and closed, how many a second, how long it waits before, and how long commands at the broker are awaited at the end."
  type = object({
    window_ms           = optional(number, 30000)
    sessions_per_s      = optional(number, 1000)
    delay_ms            = optional(number, 0)
    commands_timeout_ms = optional(number, 5000)
  })
  default = {}

  validation {
    condition = (
      var.drain.window_ms >= 0 && var.drain.sessions_per_s >= 1 && var.drain.delay_ms >= 0 && var.drain.commands_timeout_ms >= 0 &&
      alltrue([for value in values(var.drain) : floor(value) == value])
    )
    error_message = "drain must have whole numbers: window_ms, delay_ms and commands_timeout_ms of 0 or more, and sessions_per_s of 1 or more."
  }
}

variable "close_timeout_ms" {
  description = "session.close_timeout_ms: how long a close frame waits for its answer."
  type        = number
  default     = 5000

  validation {
    condition     = var.close_timeout_ms >= 100 && var.close_timeout_ms <= 60000 && floor(var.close_timeout_ms) == var.close_timeout_ms
    error_message = "close_timeout_ms must be a whole number from 100 to 60000. It is ${var.close_timeout_ms}."
  }
}

variable "redis_timeouts" {
  description = "redis.command_timeout_ms and redis.lease_ms: how long a command to Redis is waited for, and how long a node that does not report counts as alive, at least 2.5 times as long."
  type = object({
    command_ms = optional(number, 2000)
    lease_ms   = optional(number, 5000)
  })
  default = {}

  validation {
    condition = (
      var.redis_timeouts.command_ms >= 100 && floor(var.redis_timeouts.command_ms) == var.redis_timeouts.command_ms &&
      var.redis_timeouts.lease_ms >= 1000 && var.redis_timeouts.lease_ms <= 60000 && floor(var.redis_timeouts.lease_ms) == var.redis_timeouts.lease_ms &&
      var.redis_timeouts.lease_ms >= 2.5 * var.redis_timeouts.command_ms
    )
    error_message = "redis_timeouts must be whole numbers: command_ms of 100 or more, lease_ms from 1000 to 60000 and at least 2.5 times command_ms. They are ${var.redis_timeouts.command_ms} and ${var.redis_timeouts.lease_ms}."
  }
}

variable "stop_timeout_s" {
  description = "How long ECS waits between SIGTERM and SIGKILL. 120 s is the most that Fargate allows."
  type        = number
  default     = 120

  validation {
    condition     = var.stop_timeout_s >= 2 && var.stop_timeout_s <= 120 && floor(var.stop_timeout_s) == var.stop_timeout_s
    error_message = "stop_timeout_s must be a whole number from 2 to 120: Fargate kills after 120 s at the latest. It is ${var.stop_timeout_s}."
  }
  validation {
    condition     = local.stop_longest_s <= var.stop_timeout_s
    error_message = "A stop can take ${local.stop_longest_s} s, and stop_timeout_s is ${var.stop_timeout_s} (at most 120). It is drain.delay_ms, half of drain.window_ms or connections_max / drain.sessions_per_s, a quarter of drain.window_ms, twice drain.commands_timeout_ms and close_timeout_ms, four times redis_timeouts.command_ms, and more. Lower one of them or raise drain.sessions_per_s."
  }
}
