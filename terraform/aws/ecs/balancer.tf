# The public door: an application balancer with TLS alone. What comes by plain HTTP is sent on to HTTPS.

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Balancer of ${var.name}: HTTPS from clients, the public port of nodes"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-balancer" })
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  #checkov:skip=CKV_AWS_260:Port 80 answers with a redirect to HTTPS and nothing else
  for_each = {
    for pair in setproduct(var.allowed_cidrs, [80, 443]) : "${pair[0]}-${pair[1]}" => { cidr = pair[0], port = pair[1] }
  }

  security_group_id = aws_security_group.balancer.id
  description       = "Clients, port ${each.value.port}"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_nodes" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Sessions and health of nodes"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "tcp"
  from_port                    = local.port.http
  to_port                      = local.port.http
  tags                         = local.tags
}

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_91:The access log needs a bucket of the caller's: access_log_bucket
  #checkov:skip=CKV_AWS_150:Deletion protection is on by default; the switch is for stacks that are thrown away
  #checkov:skip=CKV2_AWS_28:WAF is the caller's choice: web_acl_arn
  #checkov:skip=CKV2_AWS_76:The rules of WAF are the caller's: web_acl_arn
  name                       = var.name
  internal                   = var.internal
  load_balancer_type         = "application"
  subnets                    = var.internal ? var.private_subnet_ids : var.public_subnet_ids
  security_groups            = [aws_security_group.balancer.id]
  idle_timeout               = var.idle_timeout_s
  enable_deletion_protection = var.deletion_protection
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "defensive"
  enable_http2               = true
  tags                       = local.tags

  dynamic "access_logs" {
    for_each = var.access_log_bucket == null ? [] : [var.access_log_bucket]

    content {
      bucket  = access_logs.value
      prefix  = var.name
      enabled = true
    }
  }
}

resource "aws_lb_target_group" "sessions" {
  #checkov:skip=CKV_AWS_378:TLS ends at the balancer; nodes speak HTTP/1.1 inside the VPC
  name                          = var.name
  vpc_id                        = var.vpc_id
  target_type                   = "ip"
  protocol                      = "HTTP"
  protocol_version              = "HTTP1"
  port                          = local.port.http
  load_balancing_algorithm_type = var.balancing
  deregistration_delay          = var.deregistration_delay_s
  tags                          = local.tags

  health_check {
    path                = var.health_path
    port                = "traffic-port"
    protocol            = "HTTP"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }

  stickiness {
    enabled         = var.stickiness
    type            = "lb_cookie"
    cookie_duration = 86400
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = "HTTPS"
  port              = 443
  certificate_arn   = var.certificate_arn
  ssl_policy        = var.tls_policy
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.sessions.arn
  }
}

resource "aws_lb_listener" "redirect" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = "HTTP"
  port              = 80
  tags              = local.tags

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_wafv2_web_acl_association" "this" {
  count = var.web_acl_arn == null ? 0 : 1

  resource_arn = aws_lb.this.arn
  web_acl_arn  = var.web_acl_arn
}
