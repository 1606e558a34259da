"""Rules about what points at what: selectors, ports, backends, secrets, volumes.

In: the objects of one rendering. Out: what is wrong, each in words. A schema sees none of this.
"""

import re

from objects import ROOT, containers, gateway, hits, name, of_kind, pod_specs, settings

# Who may be reached by clients. The API and metrics never are.
PUBLIC = "http"


def selectors(objects):
    """Every selector hits what it is for."""
    pods = [meta.get("labels", {}) for _, meta, _ in pod_specs(objects)]
    services = [found["metadata"].get("labels", {}) for found in of_kind(objects, "Service")]
    for found, meta, spec in pod_specs(objects):
        labels = meta.get("labels", {})
        own = found["spec"].get("selector")
        if own and not (own.get("matchLabels") and hits(own, labels)):
            yield f"{name(found)}: its selector is not that of its pods: {own} and {labels}"
        for spread in spec.get("topologySpreadConstraints", []):
            if not hits(spread["labelSelector"], labels):
                yield f"{name(found)}: a topology spread selects other pods: {spread['labelSelector']}"
    for found in of_kind(objects, "Service", "PodDisruptionBudget"):
        selector = found["spec"].get("selector")
        if not selector or sum(hits(selector, labels) for labels in pods) != 1:
            yield f"{name(found)}: its selector does not hit exactly one kind of pods: {selector}"
    for found in of_kind(objects, "NetworkPolicy"):
        if not any(hits(found["spec"]["podSelector"], labels) for labels in pods):
            yield f"{name(found)}: its selector hits no pod"
    for found in of_kind(objects, "ServiceMonitor"):
        if sum(hits(found["spec"]["selector"], labels) for labels in services) != 1:
            yield f"{name(found)}: its selector does not hit exactly one Service"
    for found in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = found["spec"]["scaleTargetRef"]
        if target["name"] not in [d["metadata"]["name"] for d in of_kind(objects, "Deployment")]:
            yield f"{name(found)}: there is no Deployment {target['name']}"


def reach(objects):
    """The network policy of the nodes lets the test pod in, and nobody from elsewhere to the API."""
    deployment, _ = gateway(objects)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    testers = [found["metadata"].get("labels", {}) for found in of_kind(objects, "Pod")]
    for policy in of_kind(objects, "NetworkPolicy"):
        if not hits(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"]["ingress"]:
            opened = [port["port"] for port in rule["ports"]]
            peers = rule.get("from")
            if peers is None and opened != [PUBLIC]:
                yield f"{name(policy)}: everybody reaches {opened}"
            near = [peer["podSelector"] for peer in peers or [] if set(peer) == {"podSelector"}]
            for tester in testers:
                if "metrics" not in opened and peers and not any(hits(one, tester) for one in near):
                    yield f"{name(policy)}: the test pod does not reach {opened}"


def ports_of(spec):
    return {port["name"]: port["containerPort"] for c in spec["containers"] for port in c.get("ports", [])}


def ports(objects):
    """Named ports are there, and listeners listen on them."""
    for found, meta, spec in pod_specs(objects):
        named = ports_of(spec)
        for container in containers(spec):
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind, {})
                asked = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if asked is not None and asked not in named:
                    yield f"{name(found)}: {kind} asks the port {asked}, and there are {sorted(named)}"
        for service in of_kind(objects, "Service"):
            if hits(service["spec"]["selector"], meta.get("labels", {})):
                yield from missing_ports(service, service["spec"]["ports"], "targetPort", named)
        for policy in of_kind(objects, "NetworkPolicy"):
            if hits(policy["spec"]["podSelector"], meta.get("labels", {})):
                asked = [port for rule in policy["spec"].get("ingress", []) for port in rule.get("ports", [])]
                yield from missing_ports(policy, asked, "port", named)
    deployment, _ = gateway(objects)
    named = ports_of(deployment["spec"]["template"]["spec"])
    config = settings(objects)
    for port, section in (("http", "server"), ("api", "api"), ("metrics", "metrics")):
        listen = config.get(section, {}).get("listen", "")
        if listen.rsplit(":", 1)[-1] != str(named.get(port)):
            yield f"{section}.listen is {listen!r}, and the port {port} is {named.get(port)}"
    services = {found["metadata"]["name"]: found for found in of_kind(objects, "Service")}
    for found in of_kind(objects, "ServiceMonitor"):
        offered = {p["name"] for s in services.values() for p in s["spec"]["ports"]
                   if hits(found["spec"]["selector"], s["metadata"].get("labels", {}))}
        for endpoint in found["spec"]["endpoints"]:
            if endpoint["port"] not in offered:
                yield f"{name(found)}: its Service has no port {endpoint['port']}"


def missing_ports(found, asked, field, named):
    for port in asked:
        wanted = port.get(field)
        if wanted not in named and wanted not in named.values():
            yield f"{name(found)}: no container has the port {wanted}"


def backends(objects):
    """What is public leads to the port for clients, and to no other."""
    services = {found["metadata"]["name"]: found["spec"] for found in of_kind(objects, "Service")}
    for found, service, port in routes(objects):
        if service not in services:
            yield f"{name(found)}: there is no Service {service}"
            continue
        targets = [p.get("targetPort") for p in services[service]["ports"] if port in (p["port"], p["name"])]
        if targets != [PUBLIC]:
            yield f"{name(found)}: it leads to {service}:{port}, which is {targets} and not the port for clients"
    for label, spec in services.items():
        opened = [p["targetPort"] for p in spec["ports"] if spec.get("type", "ClusterIP") != "ClusterIP"]
        if set(opened) - {PUBLIC}:
            yield f"Service/{label}: it is {spec['type']} and opens {opened} to the outside"


def routes(objects):
    for found in of_kind(objects, "Ingress"):
        for rule in found["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                port = service["port"]
                yield found, service["name"], port.get("name", port.get("number"))
    for found in of_kind(objects, "HTTPRoute"):
        for rule in found["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield found, backend["name"], backend["port"]


def known_variables():
    page = (ROOT / "docs/configuration.md").read_text()
    return set(re.findall(r"FANFARE_[A-Z0-9_]+", page))


def variables(objects):
    """Variables are of the gateway's configuration, each once, and none is a secret in plain text."""
    known = known_variables()
    for found, _, spec in pod_specs(objects):
        for container in spec["containers"]:
            seen = set()
            for variable in container.get("env", []):
                label = variable["name"]
                if label in seen:
                    yield f"{name(found)}: the variable {label} is set twice"
                seen.add(label)
                if label.startswith("FANFARE_") and label not in known:
                    yield f"{name(found)}: {label} is no variable of docs/configuration.md"
                if re.search(r"SECRET|KEYS?$|PASSWORD|TOKEN|HEADERS", label) and "value" in variable:
                    yield f"{name(found)}: {label} stands in plain text"


def secret_keys(objects, given):
    """Secrets that are used are made here with that key, or are named by the values."""
    made = {s["metadata"]["name"]: set(s.get("data", {})) | set(s.get("stringData", {}))
            for s in of_kind(objects, "Secret")}
    for found, secret, key in used_secrets(objects):
        if secret in made:
            if key not in made[secret]:
                yield f"{name(found)}: the Secret {secret} has no key {key}, only {sorted(made[secret])}"
        elif (secret, key) not in given:
            yield f"{name(found)}: nobody said that the Secret {secret} with the key {key} is there"


def used_secrets(objects):
    for found, _, spec in pod_specs(objects):
        for container in containers(spec):
            for variable in container.get("env", []):
                ref = variable.get("valueFrom", {}).get("secretKeyRef")
                if ref:
                    yield found, ref["name"], ref["key"]
        for volume in spec.get("volumes", []):
            secret = volume.get("secret")
            for item in (secret or {}).get("items", []):
                yield found, secret["secretName"], item["key"]
    for found in of_kind(objects, "TriggerAuthentication"):
        for ref in found["spec"]["secretTargetRef"]:
            yield found, ref["name"], ref["key"]


def volumes(objects):
    """Mounts have volumes, volumes have mounts, and files of the configuration are mounted."""
    for found, _, spec in pod_specs(objects):
        there = {volume["name"] for volume in spec.get("volumes", [])}
        mounted = {m["name"] for c in containers(spec) for m in c.get("volumeMounts", [])}
        for label in sorted(there ^ mounted):
            yield f"{name(found)}: the volume {label} is {'not mounted' if label in there else 'not there'}"
    deployment, container = gateway(objects)
    spec = deployment["spec"]["template"]["spec"]
    by_name = {volume["name"]: volume for volume in spec["volumes"]}
    files = set()
    for mount in container["volumeMounts"]:
        items = by_name.get(mount["name"], {}).get("secret", {}).get("items", [])
        files |= {f"{mount['mountPath']}/{item['path']}" for item in items}
    for key, path in settings(objects).get("redis", {}).items():
        if key.endswith("_file") and path not in files:
            yield f"redis.{key} is {path}, which no volume has"
    config = by_name.get("config", {}).get("configMap", {}).get("name")
    if config not in [found["metadata"]["name"] for found in of_kind(objects, "ConfigMap")]:
        yield f"{name(deployment)}: there is no ConfigMap {config}"
