output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "The IPv4 network of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "public_subnet_ids" {
  description = "Public subnets, for balancers, one a zone, in the order of zones."
  value       = [for zone in var.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "Private subnets, for nodes, Redis and PostgreSQL, one a zone, in the order of zones."
  value       = [for zone in var.zones : aws_subnet.private[zone].id]
}

output "nat_addresses" {
  description = "Public addresses from which nodes reach the internet."
  value       = [for zone in sort(tolist(local.nat_zones)) : aws_eip.nat[zone].public_ip]
}
