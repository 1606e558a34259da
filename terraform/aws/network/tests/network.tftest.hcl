mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

variables {
  zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
}

run "a_subnet_of_each_kind_in_each_zone" {
  assert {
    condition     = length(output.private_subnet_ids) == 3 && length(output.public_subnet_ids) == 3
    error_message = "There must be a private and a public subnet in each of three zones."
  }
  assert {
    condition     = aws_subnet.private["eu-central-1b"].cidr_block == "10.20.16.0/20" && aws_subnet.public["eu-central-1a"].cidr_block == "10.20.128.0/20"
    error_message = "Subnets must be parts of the VPC's network that do not overlap."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "Nothing may get a public address by standing in a public subnet."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route.nat) == 3
    error_message = "By default each zone has a NAT gateway of its own."
  }
  assert {
    condition     = aws_flow_log.this[0].traffic_type == "ALL"
    error_message = "The flow log must have what was refused too."
  }
}

run "one_gateway_serves_all_zones" {
  variables {
    nat_gateways            = "single"
    flow_log_retention_days = 0
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.nat) == 3
    error_message = "One gateway must serve the route of each zone."
  }
  assert {
    condition     = length(aws_flow_log.this) == 0
    error_message = "0 days must make no flow log."
  }
}

run "without_gateways_by_endpoints" {
  variables {
    nat_gateways  = "none"
    vpc_endpoints = true
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0
    error_message = "Without gateways there must be no route to one."
  }
  assert {
    condition     = aws_vpc_endpoint.interface["logs"].service_name == "com.amazonaws.eu-central-1.logs"
    error_message = "Endpoints must be those of the region."
  }
}

run "bad_cidr_is_refused" {
  command = plan
  variables {
    cidr = "10.20.0.0/33"
  }
  expect_failures = [var.cidr]
}

run "a_host_is_no_network" {
  command = plan
  variables {
    cidr = "10.20.0.7/16"
  }
  expect_failures = [var.cidr]
}

run "one_zone_is_refused" {
  command = plan
  variables {
    zones = ["eu-central-1a"]
  }
  expect_failures = [var.zones]
}

run "the_same_zone_twice_is_refused" {
  command = plan
  variables {
    zones = ["eu-central-1a", "eu-central-1a"]
  }
  expect_failures = [var.zones]
}

run "no_way_out_is_refused" {
  command = plan
  variables {
    nat_gateways = "none"
  }
  expect_failures = [var.vpc_endpoints]
}
