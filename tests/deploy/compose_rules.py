"""What docker-compose.yml must say beside its schema.

    compose_rules.py ROOT BINARY

Services are confined and bounded, ports are of this machine alone, files that are named are there, and
what nodes are given is a configuration that a node takes. Prints how many claims it looked at.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT, BINARY = pathlib.Path(sys.argv[1]), sys.argv[2]
FOLDER = ROOT / "examples/compose"
faults = []
seen = 0


def rule(is_kept, says):
    """One claim that was looked at."""
    global seen
    seen += 1
    if not is_kept:
        faults.append(says)


def service_is_confined(name, service):
    rule(service.get("read_only") is True, f"{name}: the root is not read-only")
    rule(service.get("cap_drop") == ["ALL"], f"{name}: capabilities are not dropped")
    rule("no-new-privileges:true" in service.get("security_opt", []), f"{name}: it may gain privileges")
    for limit in ("mem_limit", "cpus", "pids_limit"):
        rule(limit in service, f"{name}: no {limit}")
    image = re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", service["image"])
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    rule(tag and tag != "latest", f"{name}: the image has no tag of one version")
    for port in service.get("ports", []):
        rule(str(port).startswith("127.0.0.1:"), f"{name}: port {port} is not of this machine alone")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            rule((FOLDER / source).exists(), f"{name}: {source} is not there")


def config_is_taken(name, environment):
    """A node reads what it is given, without a fault. Files of the containers are played."""
    settings = {key: re.sub(r"\$\{[^}]*\}", "0123456789abcdef0123456789abcdef", str(value))
                for key, value in environment.items()}
    settings["FANFARE_CONFIG"] = str(ROOT / "examples/fanfare.toml")
    with tempfile.NamedTemporaryFile("w") as password:
        password.write("played")
        password.flush()
        settings["FANFARE_REDIS__PASSWORD_FILE"] = password.name
        said = subprocess.run([BINARY, "config", "check"], env={"PATH": os.environ["PATH"], **settings},
                              capture_output=True, text=True, check=False)
    rule(said.returncode == 0, f"{name}: its configuration is refused: {said.stderr.strip()}")


def nodes_are_a_cluster(services):
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    rule(len(nodes) == 3, f"{len(nodes)} nodes, not three")
    names = [service["environment"].get("FANFARE_SERVER__NODE_ID") for service in nodes.values()]
    rule(len(set(names)) == len(nodes), f"nodes share a name: {names}")
    for name, service in nodes.items():
        rule(service.get("user") == "65532:65532", f"{name}: not the user 65532")
        rule("/usr/local/bin/fanfare" in service["healthcheck"]["test"], f"{name}: health is not asked by fanfare")
        rule("ports" not in service, f"{name}: a node can be reached past the balancer")
        delay_s = int(service["environment"].get("FANFARE_DRAIN__DELAY_MS", 0)) / 1000
        rule(delay_s > 3, f"{name}: drain.delay_ms is shorter than HAProxy needs to see it")
        bound = re.search(r"hash-balance-factor (\d+)", (FOLDER / "haproxy.cfg").read_text())
        tolerance = int(service["environment"].get("FANFARE_REBALANCE__TOLERANCE_PERCENT", 20))
        rule(bound and tolerance > int(bound[1]) - 100, f"{name}: rebalancing sends away who stands at the bound of HAProxy")
        config_is_taken(name, service["environment"])
        for other in ("haproxy.cfg", "prometheus.yaml"):
            rule(re.search(rf"\b{name}:", (FOLDER / other).read_text()), f"{other} does not know {name}")


def main():
    document = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
    services = document["services"]
    for name, service in services.items():
        service_is_confined(name, service)
    nodes_are_a_cluster(services)
    rule(services["prometheus"].get("profiles") == ["observe"], "prometheus is not of the profile observe")
    rule(services["grafana"].get("profiles") == ["observe"], "grafana is not of the profile observe")
    rule("maxmemory-policy noeviction" in (FOLDER / "valkey.conf").read_text(), "valkey.conf: keys may be evicted")
    most_mb = re.search(r"^maxmemory (\d+)mb$", (FOLDER / "valkey.conf").read_text(), re.MULTILINE)
    limit = re.fullmatch(r"(\d+)([mg])", str(services["valkey"].get("mem_limit")))
    limit_mb = int(limit[1]) * (1024 if limit[2] == "g" else 1) if limit else 0
    rule(most_mb and int(most_mb[1]) * 2 <= limit_mb, "valkey: maxmemory is more than half of mem_limit, and a fork may have it killed")
    rule("requirepass" not in (FOLDER / "docker-compose.yml").read_text(), "docker-compose.yml: a password on a command line")
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (FOLDER / "docker-compose.yml").read_text()))
    made = set(re.findall(r"^([A-Z_]+)=", (FOLDER / "make-secrets").read_text(), re.MULTILINE))
    rule(asked and asked == made, f"make-secrets makes {sorted(made)}, asked for are {sorted(asked)}")
    for fault in faults:
        print(f"check-compose: {fault}", file=sys.stderr)
    print(f"{seen} claims about {len(services)} services were looked at, {len(faults)} are wrong")
    return 1 if faults or not services else 0


if __name__ == "__main__":
    sys.exit(main())
