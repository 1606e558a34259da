mock_provider "aws" {
  mock_resource "aws_cloudformation_stack" {
    defaults = {
      outputs = {
        UserId    = "fanfare-nodes"
        SecretArn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:fanfare/redis-AbCdEf"
      }
    }
  }
  mock_resource "aws_elasticache_replication_group" {
    defaults = { configuration_endpoint_address = "clustercfg.fanfare-redis.example.internal" }
  }
}

variables {
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b"]
  client_security_group_ids = { nodes = "sg-nodes" }
}

run "survives_a_zone_and_speaks_tls_alone" {
  assert {
    condition     = aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled
    error_message = "The loss of a zone must be a failover."
  }
  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_mode == "required"
    error_message = "TLS must be required: aws_elasticache_replication_group.this has it off, or only preferred."
  }
  assert {
    condition     = aws_elasticache_replication_group.this.final_snapshot_identifier == "fanfare-redis-final"
    error_message = "Whoever deletes Valkey must have a last snapshot."
  }
  assert {
    condition     = output.redis_url == "rediss-cluster://clustercfg.fanfare-redis.example.internal:6379"
    error_message = "The nodes' URL must ask for TLS and for a cluster."
  }
}

run "what_fanfare_asks_of_valkey" {
  assert {
    condition = {
      for parameter in aws_elasticache_parameter_group.this.parameter : parameter.name => parameter.value
      } == {
      "cluster-enabled"                                = "yes"
      "maxmemory-policy"                               = "noeviction"
      "stream-node-max-bytes"                          = "512"
      "client-output-buffer-limit-pubsub-hard-limit"   = "268435456"
      "client-output-buffer-limit-pubsub-soft-limit"   = "67108864"
      "client-output-buffer-limit-pubsub-soft-seconds" = "60"
    }
    error_message = "The parameters must be those of docs/redis.md."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.clients["nodes"].from_port == 6379 && aws_vpc_security_group_ingress_rule.clients["nodes"].to_port == 6379
    error_message = "Nodes must reach the port 6379 and no other."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.clients["nodes"].referenced_security_group_id == "sg-nodes" && aws_vpc_security_group_ingress_rule.clients["nodes"].cidr_ipv4 == null && length(aws_vpc_security_group_ingress_rule.clients) == 1
    error_message = "Valkey must be reached from the named security groups, and from no network."
  }
}

run "the_user_can_do_what_fanfare_does_and_no_more" {
  assert {
    condition     = local.access == "on ~ff:* ~{ff:* &ff:* -@all +@read +@write +@pubsub +@connection -@dangerous +evalsha +script|load +time +wait +info +role +cluster|slots +cluster|nodes +cluster|info"
    error_message = "The user must be held to the keys and channels of the prefix, and to what docs/redis.md lists: nothing dangerous."
  }
  assert {
    condition     = jsondecode(aws_cloudformation_stack.user.template_body).Resources.User.Properties.AccessString == local.access
    error_message = "ElastiCache must be told these rights."
  }
  assert {
    condition     = jsondecode(aws_cloudformation_stack.user.template_body).Resources.User.Properties.AuthenticationMode.Passwords[0]["Fn::Sub"] == "{{resolve:secretsmanager:$${Password}:SecretString:password}}"
    error_message = "The password must be a reference, so that no state has it."
  }
  assert {
    condition     = output.password_value_from == "arn:aws:secretsmanager:eu-central-1:111122223333:secret:fanfare/redis-AbCdEf:password::"
    error_message = "ECS takes one field of a secret as ARN:FIELD::."
  }
}

run "every_member_has_its_alarms" {
  variables {
    shards   = 3
    replicas = 2
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.redis) == 36 && contains(keys(aws_cloudwatch_metric_alarm.redis), "fanfare-redis-0003-003-memory")
    error_message = "Three masters with two replicas each are nine members of four alarms."
  }
  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.redis : alarm.metric_name => [alarm.threshold, alarm.evaluation_periods] if startswith(key, "fanfare-redis-0001-001-") } == {
      DatabaseMemoryUsagePercentage = [80, 5], EngineCPUUtilization = [70, 5], Evictions = [0, 1], ReplicationLag = [5, 5]
    }
    error_message = "Each alarm must have a limit that is reached before something is lost."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.redis : alarm.comparison_operator == "GreaterThanThreshold" && alarm.statistic == "Maximum"])
    error_message = "Alarms must look at the highest value."
  }
}

run "another_prefix" {
  variables {
    key_prefix = "ff2"
  }
  assert {
    condition     = strcontains(local.access, "~ff2:* ~{ff2:* &ff2:*")
    error_message = "The user must follow the prefix."
  }
}

run "one_subnet_is_refused" {
  command = plan
  variables {
    subnet_ids = ["subnet-a"]
  }
  expect_failures = [var.subnet_ids]
}

run "a_master_without_replica_is_refused" {
  command = plan
  variables {
    replicas = 0
  }
  expect_failures = [var.replicas]
}

run "an_old_engine_is_refused" {
  command = plan
  variables {
    engine_version = "7.2"
  }
  expect_failures = [var.engine_version]
}
