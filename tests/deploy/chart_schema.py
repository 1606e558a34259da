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
        "endpoint", "protocol", "headers", "traces_headers", "logs_headers", "metrics_headers", "k8s_pod_name",
        "k8s_pod_uid", "k8s_namespace_name", "k8s_node_name",
    },
}
# What a key is called whose value is a secret. None of these may be left in config.
SECRET = re.compile(r"(secret|keys|password|token|headers)$")

# Of a Service, which is the strictest.
NAME = {"type": "string", "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"}
# Of a Secret.
OBJECT = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
KEY = {"type": "string", "pattern": "^[-._a-zA-Z0-9]*$"}
HOST = r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
PATH = {"type": "string", "pattern": r"^/[^\s#?]*$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
OBJECTS = {"type": "array", "items": {"type": "object"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
# Kubernetes takes texts alone: a number or true goes into quotes.
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
DURATION = {"type": "string", "pattern": "^[1-9][0-9]*[sm]$"}
PULL_SECRETS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
}


def closed(properties, **more):
    return dict({"type": "object", "additionalProperties": False, "properties": properties}, **more)


PEERS = {
    "type": "array",
    "items": closed({key: {"type": "object"} for key in ("podSelector", "namespaceSelector", "ipBlock")},
                    minProperties=1),
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
    # An address of a pod is not known before; what listens on the loopback is reached by no probe.
    "listenAddress": {"enum": ["0.0.0.0", "[::]"]},
    "redis.url": {
        "type": "string",
        "pattern": r"^((redis|rediss|valkey|valkeys)(-sentinel|-cluster)?://[^\s/?]+(/[0-9]*)?(\?\S*)?)?$",
    },
    **{key: OBJECT for key in (
        "redis.existingSecret", "redis.tls.existingSecret", "auth.existingSecret", "api.existingSecret",
        "telemetry.headers.existingSecret", "tests.existingSecret", "serviceAccount.name",
    )},
    **{key: dict(KEY, minLength=1) for key in (
        "redis.secretKeys.url", "redis.secretKeys.password", "auth.secretKeys.hmacSecret", "api.secretKeys.keys",
        "api.secretKeys.key", "telemetry.headers.key", "tests.tokenKey",
    )},
    **{key: KEY for key in (
        "redis.secretKeys.shards", "redis.tls.caKey", "redis.tls.certificateKey", "redis.tls.privateKeyKey",
    )},
    "auth.hmacSecret": {"type": "string", "pattern": r"^[^\r\n]*$"},
    "api.keys": TEXTS,
    "devValkey.maxMemoryMib": whole(16),
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": PORT,
    "service.nodePort": whole(1, 65535, null=True),
    "service.appProtocol": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9./]*[a-z0-9])?$"},
    "service.annotations": LABELS,
    "service.labels": LABELS,
    "service.externalTrafficPolicy": {"enum": ["", "Cluster", "Local"]},
    "service.loadBalancerSourceRanges": TEXTS,
    "service.ipFamilyPolicy": {"enum": ["", "SingleStack", "PreferDualStack", "RequireDualStack"]},
    "apiService.port": PORT,
    "apiService.annotations": LABELS,
    "apiService.labels": LABELS,
    "ingress.annotations": LABELS,
    "ingress.hosts": {
        "type": "array",
        "items": closed({
            "host": {"type": "string", "pattern": f"^({HOST})?$"},
            "paths": {
                "type": "array",
                "minItems": 1,
                "items": closed({
                    "path": PATH,
                    "pathType": {"enum": ["Prefix", "Exact", "ImplementationSpecific"]},
                }, required=["path", "pathType"]),
            },
        }, required=["host", "paths"]),
    },
    "ingress.tls": {"type": "array", "items": closed({"secretName": OBJECT, "hosts": TEXTS})},
    "gatewayApi.parentRefs": {
        "type": "array",
        "items": closed(dict({key: {"type": "string"} for key in ("group", "kind", "namespace", "name", "sectionName")},
                             port=PORT), required=["name"]),
    },
    "gatewayApi.hostnames": {"type": "array", "items": {"type": "string", "pattern": f"^{HOST}$"}},
    "gatewayApi.path": PATH,
    "gatewayApi.timeouts": closed({
        key: {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"} for key in ("request", "backendRequest")
    }),
    "gatewayApi.annotations": LABELS,
    "gatewayApi.labels": LABELS,
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
    **{f"networkPolicy.{key}": PEERS for key in (
        "clientsFrom", "apiFrom", "metricsFrom", "egress.redisTo", "egress.collectorTo",
    )},
    "networkPolicy.egress.redisPorts": {"type": "array", "items": PORT},
    "networkPolicy.egress.collectorPorts": {"type": "array", "items": PORT},
    "metrics.serviceMonitor.interval": DURATION,
    "metrics.serviceMonitor.scrapeTimeout": DURATION,
    "metrics.serviceMonitor.labels": LABELS,
    "metrics.prometheusRule.labels": LABELS,
    "metrics.dashboards.labels": LABELS,
    "metrics.dashboards.annotations": LABELS,
    "telemetry.endpoint": {"type": "string", "pattern": r"^(https?://[^/@\s]+(/\S*)?)?$"},
    "telemetry.protocol": {"enum": ["http/protobuf", "grpc"]},
    "topologySpread.zone": SPREAD,
    "topologySpread.host": SPREAD,
    "maxSurge": {"oneOf": [whole(1), {"type": "string", "pattern": "^[1-9][0-9]*%$"}]},
    # An update of a pod that takes 600 s has failed.
    "minReadySeconds": whole(0, 599),
    "revisionHistoryLimit": whole(0),
    "podLabels": LABELS,
    "podAnnotations": LABELS,
    "serviceAccount.annotations": LABELS,
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
        items = next((pattern for begin, pattern in LISTS.items() if words.startswith(begin)), None)
        return {"type": "array", "items": {"type": "string", "pattern": items}} if items else dict(TEXTS)
    if re.fullmatch(r"[a-z_/0-9]+( or [a-z_/0-9]+)+", words):
        return {"enum": words.split(" or ")}
    letters = re.match(r"(\d+) to (\d+) characters of ([^,]+)", words)
    if letters:
        allowed = "".join(re.escape(one) if len(one) == 1 else one for one in letters[3].split())
        return {"type": "string", "pattern": f"^[{allowed}]{{{letters[1]},{letters[2]}}}$"}
    for begin, pattern in TEXT_FORMS.items():
        if words.startswith(begin):
            return {"type": "string", "pattern": pattern}
    return {"type": "string"}


LEVEL = "([A-Za-z0-9_:]+=)?(off|error|warn|info|debug|trace)"
# How words of the page begin, and what they mean. A login is none of an address: it would be a secret.
TEXT_FORMS = {
    "http://host": r"^https?://[^/@\s]+(/\S*)?$",
    "a URL or host:port": r"^\S+$",
    "a cookie's name": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    "a filter": f"^{LEVEL}(,{LEVEL})*$",
}
LISTS = {
    "a list of origins": r"^[a-z][a-z0-9+.-]*://[^/*\s]+$",
    "a list of attributes": r"^[^=\s]+=\S*$",
}


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


TEXT = {"type": "string", "minLength": 1}


def issuer(keys, algorithms):
    """An entry of `[[auth.issuers]]`: its keys are published, or written down."""
    texts = {"type": "array", "minItems": 1, "items": TEXT}
    return closed({
        "issuer": TEXT,
        "audience": TEXT,
        "jwks_url": {"type": "string", "pattern": r"^https://[^/@\s#]+(/[^\s#]*)?$"},
        "ca_file": TEXT,
        "allow_private": {"type": "boolean"},
        "algorithms": {"type": "array", "minItems": 1, "items": algorithms},
        "types": texts,
        "user_claim": TEXT,
        "keys": keys,
    }, required=["issuer"], oneOf=[{"required": ["jwks_url"]}, {"required": ["keys"]}])


def client():
    """An entry of `[[api.clients]]`. Values have no dates, so `expires` is in unix seconds."""
    digest = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
    return closed({
        "name": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "key_sha256": {"oneOf": [digest, {"type": "array", "minItems": 1, "maxItems": 2, "items": digest}]},
        "app": {"type": "string", "pattern": r"^(\*|[a-z0-9_-]{1,32})$"},
        "scopes": {"type": "array", "minItems": 1, "items": {"enum": ["publish", "read", "users", "queue", "admin"]}},
        "topics": {"type": "array", "minItems": 1, "maxItems": 100, "items": TEXT},
        "expires": {"type": "integer", "minimum": 1},
    }, required=["name", "key_sha256", "scopes"])


def config_shape(page):
    known = sections(page)
    namespace = closed(known.pop("namespaces.NAME"))
    if len(known) < 15:
        raise SystemExit(f"docs/configuration.md: only {len(known)} sections were found")
    properties = {}
    for section, keys in sorted(known.items()):
        own = SET_BY_CHART.get(section, set())
        left = {} if own is None else {key: keys[key] for key in sorted(keys) if key not in own}
        secret = [key for key in left if SECRET.search(key)]
        if secret:
            raise SystemExit(f"{section}.{secret[0]} is a secret by its name: add it to SET_BY_CHART in {__file__}")
        if left:
            properties[section] = closed(left)
    fields = ("id", "secret_env", "secret_file", "public_key", "public_key_env", "public_key_file")
    texts = {key: {"type": "string"} for key in fields}
    algorithms = {"enum": ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"]}
    key = closed(dict(texts, algorithm=algorithms), required=["algorithm"])
    keys = {"type": "array", "items": key}
    properties["auth"]["properties"]["keys"] = keys
    properties["auth"]["properties"]["issuers"] = {"type": "array", "maxItems": 64, "items": issuer(keys, algorithms)}
    properties["api"]["properties"]["clients"] = {"type": "array", "maxItems": 1000, "items": client()}
    properties["namespaces"] = {"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9_./=,~#-]+$"},
                                "additionalProperties": namespace}
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
