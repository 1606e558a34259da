"""Rules about who reaches whom, and who sees what: secrets in the open, network policies, who is asked where.

In: the objects of one rendering. Out: what is wrong, each in words. A schema sees none of this.
"""

import base64
import re

import chart_schema
from objects import gateway, hits, name, of_kind, settings
from rules_links import ports_of

DNS = {("UDP", 53), ("TCP", 53), ("UDP", 5353), ("TCP", 5353)}
DEFAULT_PORTS = {"http": 80, "https": 443}


def in_the_open(objects):
    """What is a secret stands in no ConfigMap, by its value and by the name of its key."""
    made = {base64.b64decode(text).decode() for secret in of_kind(objects, "Secret")
            for text in secret.get("data", {}).values()}
    made |= {text for secret in of_kind(objects, "Secret") for text in secret.get("stringData", {}).values()}
    for found in of_kind(objects, "ConfigMap"):
        for key, text in (found.get("data") or {}).items():
            if any(secret in text for secret in made):
                yield f"{name(found)}: a secret of the release stands in {key}"
    yield from secret_keys(settings(objects), "")


def secret_keys(table, path):
    """Keys of the configuration that are called as a secret is. A list of tables has further keys."""
    for key, value in table.items():
        here = f"{path}{key}"
        if isinstance(value, dict):
            yield from secret_keys(value, f"{here}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                yield from secret_keys(one, f"{here}.")
        elif chart_schema.SECRET.search(key):
            yield f"{here} stands in the ConfigMap"


def policies(objects):
    """The policies of the nodes."""
    labels = gateway(objects)[0]["spec"]["template"]["metadata"]["labels"]
    return [one for one in of_kind(objects, "NetworkPolicy") if hits(one["spec"]["podSelector"], labels)]


def let_in(objects):
    """Every port of the nodes is reached by somebody."""
    wanted = set(ports_of(gateway(objects)[0]["spec"]["template"]["spec"]))
    for policy in policies(objects):
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        for port in sorted(wanted - opened - {"sidecar"}):
            yield f"{name(policy)}: nobody reaches the port {port}"


def let_out(objects):
    """Nodes reach DNS, their Redis and their collectors."""
    for policy in policies(objects):
        if "Egress" not in policy["spec"]["policyTypes"]:
            continue
        rules = policy["spec"]["egress"]
        opened = {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}
        if not DNS <= opened:
            yield f"{name(policy)}: nodes do not reach DNS, only {sorted(opened)}"
        for what, port in addresses(objects):
            if ("TCP", port) not in opened:
                yield f"{name(policy)}: nodes do not reach {what} on port {port}"


def addresses(objects):
    """(what, port) of everything that stands in the configuration with its address."""
    config = settings(objects)
    url = config.get("redis", {}).get("url", "")
    if url:
        scheme, _, rest = url.partition("://")
        for host in re.split(r"[/?]", rest)[0].split(","):
            default = 26379 if "sentinel" in scheme else 6379
            yield "Redis", int(host.rpartition(":")[2]) if ":" in host else default
    for key, url in config.get("telemetry", {}).items():
        if key.endswith("endpoint"):
            scheme, _, rest = url.partition("://")
            host = rest.split("/")[0]
            yield f"telemetry.{key}", int(host.rpartition(":")[2]) if ":" in host else DEFAULT_PORTS[scheme]


def asked(objects):
    """Prometheus, KEDA and the test pod ask what is there."""
    for found in of_kind(objects, "ServiceMonitor"):
        for endpoint in found["spec"]["endpoints"]:
            if endpoint["path"] != "/metrics":
                yield f"{name(found)}: it asks {endpoint['path']}, and metrics are at /metrics"
    for found in of_kind(objects, "Pod"):
        env = {one["name"]: one.get("value") for one in found["spec"]["containers"][0]["env"]}
        yield from wrong_address(objects, found, env["FANFARE_URL"], "ws", "http", "/v1/connect")
        yield from wrong_address(objects, found, env["FANFARE_API_URL"], "http", "api", "")
    for found in of_kind(objects, "ScaledObject"):
        for trigger in found["spec"]["triggers"]:
            if trigger["type"] == "metrics-api":
                yield from wrong_address(objects, found, trigger["metadata"]["url"], "http", "api", "/v1/queue")


def wrong_address(objects, found, url, scheme, target, path):
    """A URL must lead to the port of that name, by a Service that there is."""
    told = re.fullmatch(r"(\w+)://([a-z0-9-]+)(?:\.\S+?\.svc)?:(\d+)(/\S*)?", url or "")
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in of_kind(objects, "Service")}
    targets = [one["targetPort"] for one in services.get(told[2], [])
               if one["port"] == int(told[3])] if told else []
    if not told or (told[1], told[4] or "", targets) != (scheme, path, [target]):
        yield f"{name(found)}: {url} is not {scheme}://SERVICE:PORT{path} of the port {target}, but of {targets}"


def one_key(objects):
    """Who sends one key of the API takes it from another place than that of all keys."""
    _, container = gateway(objects)
    every = next(v["valueFrom"]["secretKeyRef"] for v in container["env"] if v["name"] == "FANFARE_API__KEYS")
    one = [(found, ref) for found in of_kind(objects, "TriggerAuthentication")
           for ref in found["spec"]["secretTargetRef"]]
    one += [(found, v["valueFrom"]["secretKeyRef"]) for found in of_kind(objects, "Pod")
            for v in found["spec"]["containers"][0]["env"] if v["name"] == "FANFARE_API_KEY"]
    for found, ref in one:
        if (ref["name"], ref["key"]) == (every["name"], every["key"]):
            yield f"{name(found)}: it sends {ref['key']}, where all keys are, as one key"
