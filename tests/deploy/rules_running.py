"""Rules about how nodes run: security, stop, scaling, names.

In: the objects of one rendering. Out: what is wrong, each in words.
"""

import math
import re

from objects import ROOT, autoscalers, containers, gateway, name, of_kind, pod_specs, settings

PRESTOP_S = 5
SPARE_S = 10
# How long a probe must go on failing before something is done, and how long an answer may take.
PATIENCE_S = {"startupProbe": 60, "livenessProbe": 30, "readinessProbe": 6}
ANSWER_S = 3
CONNECTIONS = {"small": 100, "medium": 1000, "large": 5000, "enterprise": 10000}


def security(objects):
    """What Pod Security "restricted" asks, a root that nobody writes, and images that are named."""
    for found, _, spec in pod_specs(objects):
        pod = spec.get("securityContext", {})
        if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser"):
            yield f"{name(found)}: it may run as root"
        if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name(found)}: there is no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name(found)}: the token of its account is mounted"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name(found)}: it gets variables of other Services"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                yield f"{name(found)}: it has {field}"
        for container in containers(spec):
            yield from container_security(f"{name(found)}, {container['name']}", container)


def container_security(label, container):
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield f"{label}: it may gain rights"
    if context.get("capabilities", {}) != {"drop": ["ALL"]}:
        yield f"{label}: it keeps capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{label}: its root may be written"
    limits = container.get("resources", {}).get("limits", {})
    requests = container.get("resources", {}).get("requests", {})
    if "memory" not in limits or limits["memory"] != requests.get("memory"):
        yield f"{label}: its memory has no limit that is its request too"
    if "cpu" in limits:
        yield f"{label}: CPU has a limit, which holds up all its sessions"
    image = container["image"]
    if image.startswith("/"):
        yield f"{label}: the image {image} has no registry"
    is_named = re.search(r"@sha256:[0-9a-f]{64}$", image) or re.search(r":[^/:]+$", image)
    if not is_named or image.endswith(":latest"):
        yield f"{label}: the image {image} has no tag that stays"


def longest_stop_s(objects):
    """The formula of helm/fanfare/templates/_stop.tpl again, from the configuration of the nodes."""
    config, (_, container) = settings(objects), gateway(objects)
    env = {variable["name"]: variable for variable in container["env"]}
    drain = config["drain"]
    size = env["FANFARE_SIZE"]["value"]
    connections = config["server"].get("connections_max", CONNECTIONS[size])
    rate = drain["sessions_per_s"]
    told = max(drain["window_ms"] // 2, connections * 1000 // rate if rate else 0)
    close = config.get("session", {}).get("close_timeout_ms", 5000)
    commands_end = 2 * config.get("redis", {}).get("command_timeout_ms", 2000) + 1000
    has_redis = "FANFARE_REDIS__URL" in env or "url" in config.get("redis", {})
    parts = [
        drain["delay_ms"], told, drain["window_ms"] // 4,
        2 * (drain["commands_timeout_ms"] + close),
        5 * 2000, max(10000, commands_end),
        2 * commands_end if has_redis else 0,
        3000, 2000, 1000,
    ]
    return math.ceil(sum(parts) / 1000)


def stop(objects):
    """A node has the time to leave in order, and none is taken away before another is there."""
    deployment, container = gateway(objects)
    spec = deployment["spec"]["template"]["spec"]
    if container.get("lifecycle", {}).get("preStop") != {"sleep": {"seconds": PRESTOP_S}}:
        yield f"{name(deployment)}: preStop is no native sleep of {PRESTOP_S} s"
    least = PRESTOP_S + longest_stop_s(objects) + SPARE_S
    grace = spec.get("terminationGracePeriodSeconds", 30)
    if grace < least:
        yield f"{name(deployment)}: the grace period is {grace} s, and leaving may take {least}"
    update = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
    if update.get("maxUnavailable") != 0:
        yield f"{name(deployment)}: an update takes nodes away before others are there"
    for probe, path in (("livenessProbe", "live"), ("readinessProbe", "ready"), ("startupProbe", "live")):
        asked = container.get(probe, {}).get("httpGet", {})
        if asked.get("path") != f"/health/{path}" or asked.get("port") != "metrics":
            yield f"{name(deployment)}: {probe} does not ask /health/{path} on the port metrics"
        given = container.get(probe, {})
        patience = given.get("periodSeconds", 10) * given.get("failureThreshold", 3)
        if patience < PATIENCE_S[probe] or given.get("timeoutSeconds", 1) < ANSWER_S:
            yield (f"{name(deployment)}: {probe} gives up after {patience} s, with {given.get('timeoutSeconds', 1)} s "
                   f"for an answer; a machine that is busy needs {PATIENCE_S[probe]} and {ANSWER_S}")


def metric_names():
    page = (ROOT / "docs/metrics.md").read_text()
    return set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))


def asked_metrics(found):
    """Which metrics of nodes an autoscaler asks for, and from where."""
    for metric in found["spec"].get("metrics", []):
        if metric["type"] == "Pods":
            yield metric["pods"]["metric"]["name"], "pods"
    for trigger in found["spec"].get("triggers", []):
        for word in re.findall(r"fanfare_\w+", trigger["metadata"].get("query", "")):
            yield word, "prometheus"


def scaling(objects):
    """One autoscaler at most, which alone owns the number of nodes, and by numbers that exist."""
    deployment, _ = gateway(objects)
    found = autoscalers(objects)
    if len(found) > 1:
        yield f"two autoscalers: {[name(one) for one in found]}"
    if bool(found) == ("replicas" in deployment["spec"]):
        yield f"{name(deployment)}: replicas must be there exactly where nothing scales"
    has_redis = "url" in settings(objects).get("redis", {}) or any(
        v["name"] == "FANFARE_REDIS__URL" for v in gateway(objects)[1]["env"])
    several = bool(found) or deployment["spec"].get("replicas", 1) > 1
    if several and not has_redis:
        yield f"{name(deployment)}: several nodes without Redis"
    if (settings(objects).get("cluster", {}).get("alone") is True) == has_redis:
        yield "cluster.alone must be true exactly where there is no Redis"
    known, adapted = metric_names(), adapter_metrics()
    for one in found:
        for metric, source in asked_metrics(one):
            if metric not in known:
                yield f"{name(one)}: {metric} is no metric of docs/metrics.md"
            elif source == "pods" and metric not in adapted:
                yield f"{name(one)}: files/prometheus-adapter.yaml does not offer {metric}"
        yield from measured(one, gateway(objects)[1])
    for budget in of_kind(objects, "PodDisruptionBudget"):
        if len({"minAvailable", "maxUnavailable"} & set(budget["spec"])) != 1:
            yield f"{name(budget)}: it must have exactly one of minAvailable and maxUnavailable"
        if budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{name(budget)}: a node that is not ready holds up maintenance"


def adapter_metrics():
    text = (ROOT / "helm/fanfare/files/prometheus-adapter.yaml").read_text()
    return set(re.findall(r"seriesQuery: '(\w+)\{", text))


def measured(found, container):
    """CPU and memory are those of the gateway's container, which has requests to measure by."""
    asked = [(m["containerResource"]["container"], m["containerResource"]["name"])
             for m in found["spec"].get("metrics", []) if m["type"] == "ContainerResource"]
    asked += [(t["metadata"].get("containerName"), t["type"])
              for t in found["spec"].get("triggers", []) if t["type"] in ("cpu", "memory")]
    for label, resource in asked:
        if label != container["name"] or resource not in container["resources"]["requests"]:
            yield f"{name(found)}: {label} has no request of {resource} to measure by"
    if any(m["type"] == "Resource" for m in found["spec"].get("metrics", [])):
        yield f"{name(found)}: it measures whole pods, and a container without requests leaves no number"


def pace(objects):
    """Up at once, at least doubled in 15 s; down by one node for each stop, when the need has passed.

    What such a behavior does to a queue that grows is tried by tests/house/autoscaling.
    """
    stop_s = longest_stop_s(objects)
    for found in autoscalers(objects):
        spec = found["spec"]
        least, most = (spec.get(key) for key in ("minReplicas", "maxReplicas"))
        if found["kind"] == "ScaledObject":
            least, most = spec.get("minReplicaCount"), spec.get("maxReplicaCount")
            spec = spec["advanced"]["horizontalPodAutoscalerConfig"]
        if not (least and most and 2 <= least <= most):
            yield f"{name(found)}: it goes from {least} to {most} nodes"
        up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
        doubles = {"type": "Percent", "value": 100, "periodSeconds": 15}
        if up["stabilizationWindowSeconds"] != 0 or up["selectPolicy"] != "Max" or doubles not in up["policies"]:
            yield f"{name(found)}: it does not go up at once, to twice the nodes in 15 s: {up}"
        window = down["stabilizationWindowSeconds"]
        if window < min(3600, max(300, 2 * stop_s)):
            yield f"{name(found)}: it goes down after {window} s, and a stop takes {stop_s}"
        for policy in down["policies"]:
            if (policy["type"], policy["value"]) != ("Pods", 1) or policy["periodSeconds"] < min(1800, stop_s):
                yield f"{name(found)}: it goes down faster than one node for each stop of {stop_s} s"


def names(objects):
    """Names and labels are such that a server takes them, and no object is there twice."""
    seen = set()
    for found in objects:
        label, short = name(found), found["metadata"]["name"]
        if label in seen:
            yield f"{label} is there twice"
        seen.add(label)
        most = 46 if found["kind"] == "Deployment" else 63
        legal = r"[a-z]([-a-z0-9]*[a-z0-9])?" if found["kind"] == "Service" else r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
        if not re.fullmatch(legal, short) or len(short) > most:
            yield f"{label}: no legal name of at most {most} characters"
        for key, value in found["metadata"].get("labels", {}).items():
            if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", str(value)):
                yield f"{label}: the label {key} has the value {value!r}"
