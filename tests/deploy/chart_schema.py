"""helm/fanfare/values.schema.json, made from values.yaml and docs/configuration.md.

In: the keys of values.yaml with their comments and defaults, from which types follow; SHAPES below,
where they do not; and the tables of docs/configuration.md for `config`. Out: a schema (draft-07, which
Helm 3 and 4 read) that is closed to unknown keys.
"""

import re

import yaml

# Keys of the configuration that the chart sets itself, and secrets, which do not belong into a
# ConfigMap.
SET_BY_CHART = {
    "server": {"listen", "node_id"},
    "api": {"listen", "keys"},
    "metrics": {"listen"},
    "redis": {
        "url", "shards", "user", "password_file", "tls_ca_file", "tls_certificate_file", "tls_key_file",
        "tls_server_name",
    },
    "auth": {"hmac_secret"},
    "cluster": {"alone"},
    "drain": None,
    "telemetry": {
        "endpoint", "protocol", "headers", "k8s_pod_name", "k8s_pod_uid", "k8s_namespace_name",
        "k8s_node_name",
    },
}

NAME = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
OBJECTS = {"type": "array", "items": {"type": "object"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
SPREAD = {"enum": ["ScheduleAnyway", "DoNotSchedule", "none"]}
COUNT_OR_PERCENT = {
    "oneOf": [
        {"type": "null"},
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"},
    ]
}
PULL_SECRETS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
}


def whole(least, most=None, null=False):
    shape = {"type": ["integer", "null"] if null else "integer", "minimum": least}
    if most is not None:
        shape["maximum"] = most
    return shape


# What the default of a key does not say.
SHAPES = {
    "global.imagePullSecrets": PULL_SECRETS,
    "image.pullSecrets": PULL_SECRETS,
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "nameOverride": dict(NAME, maxLength=40),
    "fullnameOverride": dict(NAME, maxLength=46),
    "commonLabels": LABELS,
    "size": {"enum": ["small", "medium", "large", "enterprise"]},
    "environment": {"enum": ["development", "staging", "production"]},
    "replicaCount": whole(0),
    "auth.secretKeys.hmacSecret": {"type": "string", "minLength": 1},
    "api.keys": TEXTS,
    "devValkey.maxMemoryMib": whole(16),
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": PORT,
    "service.nodePort": whole(1, 65535, null=True),
    "service.externalTrafficPolicy": {"enum": ["", "Cluster", "Local"]},
    "service.loadBalancerSourceRanges": TEXTS,
    "service.ipFamilyPolicy": {"enum": ["", "SingleStack", "PreferDualStack", "RequireDualStack"]},
    "apiService.port": PORT,
    "ingress.hosts": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "host": {"type": "string"},
                "paths": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "path": {"type": "string", "pattern": "^/"},
                            "pathType": {"enum": ["Prefix", "Exact", "ImplementationSpecific"]},
                        },
                        "required": ["path", "pathType"],
                        "additionalProperties": False,
                    },
                },
            },
            "required": ["host", "paths"],
            "additionalProperties": False,
        },
    },
    "ingress.tls": OBJECTS,
    "gatewayApi.parentRefs": {
        "type": "array",
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    },
    "gatewayApi.hostnames": TEXTS,
    "gatewayApi.path": {"type": "string", "pattern": "^/"},
    "gatewayApi.timeouts": {
        "type": "object",
        "properties": {"request": {"type": "string"}, "backendRequest": {"type": "string"}},
        "additionalProperties": False,
    },
    # YAML takes a bare off for false. Which words there are is said by the templates, better than here.
    "autoscaling.mode": {"type": ["string", "boolean"]},
    "autoscaling.minReplicas": whole(1),
    "autoscaling.maxReplicas": whole(1),
    "autoscaling.queueMetric": {"enum": ["pressure", "depth"]},
    "autoscaling.queueTarget": whole(0),
    "autoscaling.sessionsPercent": PERCENT,
    "autoscaling.cpuPercent": whole(0),
    "autoscaling.memoryPercent": whole(0),
    "autoscaling.keda.trigger": {"enum": ["prometheus", "metrics-api"]},
    "autoscaling.keda.pollingInterval": whole(1),
    "autoscaling.keda.failureThreshold": whole(0),
    # The ranges of [drain] in docs/configuration.md.
    "drain.windowMs": whole(0, 3600000),
    "drain.sessionsPerSecond": whole(0, 10000000),
    "drain.delayMs": whole(0, 600000),
    "drain.commandsTimeoutMs": whole(0, 60000),
    "terminationGracePeriodSeconds": whole(0, null=True),
    "podDisruptionBudget.minAvailable": COUNT_OR_PERCENT,
    "podDisruptionBudget.maxUnavailable": COUNT_OR_PERCENT,
    "networkPolicy.egress.redisPorts": {"type": "array", "items": PORT, "minItems": 1},
    "networkPolicy.egress.collectorPorts": {"type": "array", "items": PORT, "minItems": 1},
    "metrics.serviceMonitor.labels": LABELS,
    "metrics.prometheusRule.labels": LABELS,
    "metrics.dashboards.labels": LABELS,
    "telemetry.protocol": {"enum": ["http/protobuf", "grpc"]},
    "topologySpread.zone": SPREAD,
    "topologySpread.host": SPREAD,
    "maxSurge": {"oneOf": [whole(1), {"type": "string", "pattern": "^[1-9][0-9]*%$"}]},
    "minReadySeconds": whole(0),
    "revisionHistoryLimit": whole(0),
    "podLabels": LABELS,
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
}


def comments(text):
    """The comment over each key of values.yaml, by its path."""
    said, lines, path = {}, [], []
    for line in text.splitlines():
        comment = re.match(r"\s*# ?(.*)", line)
        key = re.match(r"( *)(?:- )?([A-Za-z0-9_]+):", line)
        if comment:
            lines.append(comment[1])
        elif key and "- " not in line[: key.end()]:
            depth = len(key[1]) // 2
            path = path[:depth] + [key[2]]
            if lines:
                said[".".join(path)] = " ".join(lines)
            lines = []
        else:
            lines = []
    return said


def of_default(value):
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):
        return {"type": "string"}
    if isinstance(value, list):
        return dict(OBJECTS)
    return {"type": "object"}


def shape_of(value, path, said):
    if path == "config":
        return {"$ref": "#/definitions/config", "description": said[path]}
    if path in SHAPES:
        shape = dict(SHAPES[path])
    elif isinstance(value, dict) and value and not path.endswith("labels"):
        properties = {key: shape_of(value[key], f"{path}.{key}".lstrip("."), said) for key in value}
        # Other charts of the same parent have keys of their own in global.
        shape = {"type": "object", "additionalProperties": path == "global", "properties": properties}
    elif value is None:
        raise SystemExit(f"values.yaml: {path} is null, and SHAPES in {__file__} does not say what it may be")
    else:
        shape = of_default(value)
    if path in said:
        shape["description"] = said[path]
    return shape


def of_words(words):
    """The schema of what docs/configuration.md says in its column of values."""
    number = re.match(r"a whole number from (\d+) to (\d+)", words)
    if number:
        bounds = {"type": "integer", "minimum": int(number[1]), "maximum": int(number[2])}
        return {"anyOf": [bounds, {"const": 0}]} if ", or 0 for" in words else bounds
    number = re.match(r"a number from (\S+) to (\S+)", words)
    if number:
        return {"type": "number", "minimum": float(number[1]), "maximum": float(number[2])}
    if words == "true or false":
        return {"type": "boolean"}
    if words.startswith("a list of"):
        return dict(TEXTS)
    if re.fullmatch(r"[a-z_/0-9]+( or [a-z_/0-9]+)+", words):
        return {"enum": words.split(" or ")}
    return {"type": "string"}


def sections(page):
    """The keys of each section of docs/configuration.md: {section: {key: schema}}."""
    found, section = {}, None
    for line in page.splitlines():
        heading = re.match(r"#+ `\[+([a-zA-Z.]+)\]+`", line)
        if heading:
            section = heading[1]
        elif line.startswith("#"):
            section = None
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        key = re.fullmatch(r"`([a-z0-9_]+)`", cells[0])
        if section and key and len(cells) >= 4:
            found.setdefault(section, {})[key[1]] = dict(of_words(cells[2]), description=cells[1])
    return found


def closed(properties, **more):
    return dict({"type": "object", "additionalProperties": False, "properties": properties}, **more)


def config_shape(page):
    known = sections(page)
    namespace = closed(known.pop("namespaces.NAME"))
    if len(known) < 15:
        raise SystemExit(f"docs/configuration.md: only {len(known)} sections were found")
    properties = {}
    for section, keys in sorted(known.items()):
        own = SET_BY_CHART.get(section, set())
        left = {} if own is None else {key: keys[key] for key in sorted(keys) if key not in own}
        if left:
            properties[section] = closed(left)
    texts = {key: {"type": "string"} for key in ("id", "secret_env", "secret_file", "public_key", "public_key_file")}
    algorithms = {"enum": ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"]}
    key = closed(dict(texts, algorithm=algorithms), required=["algorithm"])
    properties["auth"]["properties"]["keys"] = {"type": "array", "items": key}
    properties["namespaces"] = {"type": "object", "additionalProperties": namespace}
    return closed(properties)


def schema(values_text, page):
    said = comments(values_text)
    whole_shape = shape_of(yaml.safe_load(values_text), "", said)
    for key, shape in whole_shape["properties"].items():
        if "description" not in shape:
            raise SystemExit(f"values.yaml: {key} has no comment")
    return dict(
        {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart fanfare"},
        **whole_shape,
        definitions={"config": config_shape(page)},
    )
