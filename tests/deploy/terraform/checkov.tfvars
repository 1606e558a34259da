# What is off by default is looked at too: without these, checkov passes over what has a count of 0.
enabled       = true
postgres      = true
read_replicas = 1
vpc_endpoints = true
