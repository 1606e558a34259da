"""What the examples of balancers must say, where a run of a minute would not show it.

    balancer_rules.py ROOT

Prints how many settings it saw. Ends with 1 and a line for each that is wrong.
"""

import pathlib
import re
import sys

import yaml

faults = []
seen = 0


def rule(is_kept, says):
    """One setting that was looked at."""
    global seen
    seen += 1
    if not is_kept:
        faults.append(says)


def sections(text):
    """The sections of a haproxy.cfg: name → its lines without comments."""
    found, name = {}, ""
    for line in text.splitlines():
        line = line.split("#")[0].rstrip()
        if line and not line[0].isspace():
            name = line
            found[name] = []
        elif line:
            found.setdefault(name, []).append(line.strip())
    return found


def seconds(text):
    """A duration of HAProxy or nginx: 1h, 30s, 500ms."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)?", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}[unit]


def haproxy(text):
    parts = sections(text)
    defaults, nodes = parts["defaults"], parts["backend nodes"]
    by_key = parts["backend nodes_by_key"]
    tunnel = [line.split()[2] for line in defaults if line.startswith("timeout tunnel ")]
    rule(tunnel and seconds(tunnel[0]) >= 3600, "haproxy.cfg: timeout tunnel is below an hour")
    rule("balance leastconn" in nodes, "haproxy.cfg: backend nodes does not go by fewest connections")
    rule(any("uri /health/ready" in line for line in nodes), "haproxy.cfg: health is not asked by /health/ready")
    rule("on-marked-down" not in re.sub("#.*", "", text), "haproxy.cfg: on-marked-down cuts the sessions of a node that leaves")
    rule("balance url_param route" in by_key, "haproxy.cfg: backend nodes_by_key does not go by ?route=")
    rule("hash-type consistent" in by_key, "haproxy.cfg: keys are not hashed consistently")
    rule("hash-balance-factor 125" in by_key, "haproxy.cfg: keys are not bounded at 125")
    rule(all(re.search("observe layer4 error-limit 1 on-error mark-down", " ".join(part)) for part in (nodes, by_key)),
         "haproxy.cfg: a lost node is asked again and again")
    servers = [line for line in by_key if line.startswith("server ")]
    rule(servers and all(" track nodes/" in line for line in servers), "haproxy.cfg: nodes_by_key does not follow the checks of nodes")
    rule(any(line.startswith("retry-on ") and " 503" in line for line in defaults), "haproxy.cfg: a 503 of a node that leaves is not tried elsewhere")
    formats = [line for line in defaults if line.startswith("log-format")]
    rule(formats and not re.search(r"%r(?![a-z])|%HU|%HQ|%\[url\]|%\[query", formats[0]), "haproxy.cfg: the log shows the query, where tokens stand")


def nginx(text):
    text = re.sub("#.*", "", text)
    blocks = dict(re.findall(r"upstream (\w+) \{(.*?)\}", text, re.DOTALL))
    rule("least_conn;" in blocks["nodes"], "nginx.conf: upstream nodes does not go by fewest connections")
    rule("zone " in blocks["nodes"], "nginx.conf: upstream nodes has no zone, so each process counts alone")
    rule("hash $arg_route consistent;" in blocks["nodes_by_key"], "nginx.conf: keys are not hashed consistently")
    rule("proxy_http_version 1.1;" in text, "nginx.conf: nodes are not spoken to by HTTP/1.1")
    rule("proxy_set_header Upgrade $http_upgrade;" in text, "nginx.conf: Upgrade is not passed on")
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        value = re.findall(rf"{name} (\S+);", text)
        rule(value and seconds(value[0]) >= 3600, f"nginx.conf: {name} is below an hour")
    rule(re.search("proxy_next_upstream [^;]*http_503", text), "nginx.conf: a 503 of a node that leaves is not tried elsewhere")
    servers = re.findall(r"^\s*server (10\.\S+.*);", text, re.MULTILINE)
    rule(servers and all(server.endswith(" max_fails=0") for server in servers),
         "nginx.conf: a node that failed once gets hardly any session while others last")
    connect = re.findall(r"proxy_connect_timeout (\S+);", text)
    rule(connect and seconds(connect[0]) <= 1, "nginx.conf: a machine that refuses nothing holds up handshakes for more than a second")
    formats = re.findall(r"log_format (.*?);", text, re.DOTALL)
    rule(formats and not re.search(r"\$(request|request_uri|args|query_string)\b(?!_)", formats[0]), "nginx.conf: the log shows the query, where tokens stand")


def envoy(text):
    document = yaml.safe_load(text)["static_resources"]
    http = document["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    rule(http.get("upgrade_configs") == [{"upgrade_type": "websocket"}], "envoy.yaml: WebSockets are not upgraded")
    rule("allow_connect" not in re.sub("#.*", "", text), "envoy.yaml: allow_connect is on, and nodes answer 400")
    rule(float(http.get("stream_idle_timeout", "300s").rstrip("s")) >= 3600, "envoy.yaml: stream_idle_timeout is below an hour")
    routes = http["route_config"]["virtual_hosts"][0]["routes"]
    rule(all(route["route"].get("timeout") == "0s" for route in routes), "envoy.yaml: a route ends sessions by its timeout")
    rule("PATH(NQ)" in text and "REQ(:PATH)" not in text, "envoy.yaml: the log shows the query, where tokens stand")
    retry = http["route_config"]["virtual_hosts"][0].get("retry_policy", {})
    rule(503 in retry.get("retriable_status_codes", []), "envoy.yaml: a 503 of a node that leaves is not tried elsewhere")
    clusters = {cluster["name"]: cluster for cluster in document["clusters"]}
    rule(clusters["nodes"].get("lb_policy") == "LEAST_REQUEST", "envoy.yaml: cluster nodes does not go by fewest connections")
    bound = clusters["nodes_by_key"]["common_lb_config"].get("consistent_hashing_lb_config", {})
    rule(bound.get("hash_balance_factor") == 125, "envoy.yaml: keys are not bounded at 125")
    for name, cluster in clusters.items():
        paths = [check.get("http_health_check", {}).get("path") for check in cluster.get("health_checks", [])]
        rule(paths == ["/health/ready"], f"envoy.yaml: {name}: health is not asked by /health/ready")
        panic = cluster.get("common_lb_config", {}).get("healthy_panic_threshold", {}).get("value", 50)
        rule(panic == 0, f"envoy.yaml: {name}: half of the nodes not ready makes it send to those too")
        rule("outlier_detection" not in cluster, f"envoy.yaml: {name}: each session that ends would count as a failure")
        threshold = [check.get("unhealthy_threshold") for check in cluster.get("health_checks", [])]
        rule(threshold == [1], f"envoy.yaml: {name}: a lost node is asked again and again")
        limits = cluster.get("circuit_breakers", {}).get("thresholds", [{}])[0]
        rule(limits.get("max_requests", 1024) >= 100000, f"envoy.yaml: {name}: max_requests bounds the sessions")
        rule(limits.get("max_connections", 1024) >= 100000, f"envoy.yaml: {name}: max_connections bounds the sessions")
        rule("typed_extension_protocol_options" not in cluster, f"envoy.yaml: {name}: nodes are not spoken to by HTTP/1.1")


def main():
    folder = pathlib.Path(sys.argv[1]) / "examples/balancers"
    for name, judge in (("haproxy.cfg", haproxy), ("nginx.conf", nginx), ("envoy.yaml", envoy)):
        judge((folder / name).read_text())
    for fault in faults:
        print(f"check-balancers: {fault}", file=sys.stderr)
    print(f"{seen} settings of 3 balancers were looked at, {len(faults)} are wrong")
    return 1 if faults or seen == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
