# What tflint looks for: the ruleset that is built into it. Those of aws and google are programs of their own,
# which no package registry has.

config {
  call_module_type = "local"
}

plugin "terraform" {
  enabled = true
  preset  = "recommended"
}
