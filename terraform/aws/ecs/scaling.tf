# Nodes are added when the queue, sessions, CPU or memory ask for it, whichever asks for most, and taken
# away only when all of them allow it.

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.nodes_min
  max_capacity       = var.nodes_max
  tags               = local.tags
}

locals {
  # What nodes write into their log once a minute, in CloudWatch's embedded form.
  own_metrics = {
    queue    = { metric = "fanfare_queue_pressure", target = var.queue_pressure_target }
    sessions = { metric = "fanfare_sessions", target = local.connections_max * var.sessions_target_percent / 100 }
  }
  service_metrics = {
    cpu    = { metric = "ECSServiceAverageCPUUtilization", target = var.cpu_target_percent }
    memory = { metric = "ECSServiceAverageMemoryUtilization", target = var.memory_target_percent }
  }

  # A node that goes must have left before the next is judged superfluous.
  cooldown_in_s = max(300, 2 * local.stop_longest_s)
}

resource "aws_appautoscaling_policy" "own" {
  for_each = local.own_metrics

  name               = "${var.name}-${each.key}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target
    scale_out_cooldown = 60
    scale_in_cooldown  = local.cooldown_in_s

    # Each node tells its own part, so the average of what they tell is that of a node.
    customized_metric_specification {
      namespace   = local.metric_namespace
      metric_name = each.value.metric
      statistic   = "Average"

      dimensions {
        name  = "service"
        value = var.name
      }
    }
  }
}

resource "aws_appautoscaling_policy" "service" {
  for_each = local.service_metrics

  name               = "${var.name}-${each.key}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target
    scale_out_cooldown = 60
    scale_in_cooldown  = local.cooldown_in_s

    predefined_metric_specification {
      predefined_metric_type = each.value.metric
    }
  }
}
