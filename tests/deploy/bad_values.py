"""Values that the chart refuses, each with the words in which it does.

In: the chart; refused_values.py, which has more of them. Out: values that are taken, or refused in other
words. Here they are `--set` texts over ci/default.yaml; what is said is looked for in Helm's answer.
"""

import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor

import refused_values
from objects import CHART, RELEASE, helm

REDIS = "redis.existingSecret=fanfare-redis"

REFUSED = [
    ("an unknown value", ["replicas=3"], "at '': additional properties 'replicas' not allowed"),
    ("an unknown value below another", ["redis.uri=redis://redis"],
     "at '/redis': additional properties 'uri' not allowed"),
    ("an unknown section of the configuration", ["config.sesion.ping_ms=20000"],
     "at '/config': additional properties 'sesion' not allowed"),
    ("an unknown key of the configuration", ["config.session.ping=20000"],
     "at '/config/session': additional properties 'ping' not allowed"),
    ("a key of the configuration that a value sets", ["config.drain.window_ms=1000"],
     "at '/config': additional properties 'drain' not allowed"),
    ("a secret in the configuration", ["config.auth.hmac_secret=0123456789abcdef0123456789abcdef"],
     "at '/config/auth': additional properties 'hmac_secret' not allowed"),
    ("a wrong type", ["replicaCount=three"], "at '/replicaCount': got string, want integer"),
    ("a wrong type in the configuration", ["config.session.topics_max=many"],
     "at '/config/session/topics_max': got string, want integer"),
    ("a number out of its range", ["drain.windowMs=99999999"],
     "at '/drain/windowMs': maximum: got"),
    ("a size that is none", ["size=huge"],
     "at '/size': value must be one of 'small', 'medium', 'large', 'enterprise'"),
    ("an environment that is none", ["environment=prod"],
     "at '/environment': value must be one of 'development', 'staging', 'production'"),
    ("several nodes without Redis", ["replicaCount=3"],
     "replicaCount is 3, and there is no Redis: nodes without one hear nothing of each other. Set redis.url or "
     "redis.existingSecret, or replicaCount: 1"),
    ("an autoscaler without Redis", ["autoscaling.mode=hpa"],
     "autoscaling.mode is hpa, and there is no Redis: nodes without one hear nothing of each other. Set redis.url "
     "or redis.existingSecret, or autoscaling.mode: \"off\""),
    ("HPA and KEDA both", [REDIS, "autoscaling.mode=hpa+keda"],
     "autoscaling.mode is \"hpa+keda\": set \"off\", hpa or keda, and one of them only, because KEDA makes an HPA "
     "of its own and the two would work against each other"),
    ("fewest nodes above most", [REDIS, "autoscaling.mode=hpa", "autoscaling.minReplicas=40"],
     "autoscaling.minReplicas is 40, more than autoscaling.maxReplicas, 30"),
    ("an autoscaler for which nothing counts",
     [REDIS, "autoscaling.mode=hpa", *(f"autoscaling.{key}=0" for key in
                                       ("queueTarget", "sessionsPercent", "cpuPercent", "memoryPercent"))],
     "autoscaling.mode is hpa, and nothing counts: set one of queueTarget, sessionsPercent, cpuPercent and "
     "memoryPercent"),
    ("KEDA without the address of Prometheus", [REDIS, "autoscaling.mode=keda"],
     "autoscaling.keda.trigger is prometheus, and there is no address: set autoscaling.keda.prometheusAddress, or "
     "trigger: metrics-api"),
    ("KEDA that asks an API which no Service has",
     [REDIS, "autoscaling.mode=keda", "autoscaling.keda.trigger=metrics-api", "apiService.enabled=false"],
     "autoscaling.keda.trigger is metrics-api, which asks the API, and apiService.enabled is false: set it to true, "
     "or trigger: prometheus"),
    ("a grace period that is too short", [REDIS, "terminationGracePeriodSeconds=30"],
     "terminationGracePeriodSeconds is 30, and a node may need 94 (5 for preStop, 79 for its longest stop, 10 to "
     "spare): sessions would be cut off. Leave it out, or shorten drain.windowMs"),
    ("both fields of a disruption budget",
     [REDIS, "podDisruptionBudget.minAvailable=1", "podDisruptionBudget.maxUnavailable=1"],
     "podDisruptionBudget has minAvailable and maxUnavailable, and Kubernetes takes exactly one: leave one of them "
     "out"),
    ("a malformed digest", ["image.digest=sha256:abc"],
     "image.digest is \"sha256:abc\": a digest is sha256: and 64 hexadecimal digits in small letters"),
    ("no token key", ["auth.hmacSecret=", "auth.createSecret=false"],
     "there is no token key, so that nobody could connect: set auth.existingSecret, auth.hmacSecret, "
     "config.auth.keys or config.auth.issuers, or auth.createSecret: true"),
    ("no key for the API", ["api.keys=null", "api.createSecret=false"],
     "there is no key for the API, so that no backend could publish: set api.existingSecret or api.keys, or "
     "api.createSecret: true"),
    ("a token secret that is too short", ["auth.hmacSecret=short"],
     "auth.hmacSecret has 5 bytes: a token secret has at least 32; `openssl rand -hex 32` makes one"),
    ("a key of the API that is too short", ["api.keys={short}"],
     "api.keys has a key that is shorter than 16 characters, or has something else than printable ASCII without "
     "spaces and commas: `openssl rand -hex 32` makes one"),
    ("a password in the address of Redis", ["redis.url=redis://fanfare:secret@redis"],
     "redis.url has a login in it, which everybody could read who may see the release: put the whole address into "
     "a Secret, name it in redis.existingSecret, and leave redis.url out; or leave the login out and set redis.user"),
    ("a user of Redis without a password", ["redis.url=redis://redis", "redis.user=fanfare"],
     "redis.user is set without a password: set redis.url and redis.existingSecret, whose key "
     "redis.secretKeys.password has it"),
    ("two Redis", [REDIS, "devValkey.enabled=true", "environment=staging"],
     "devValkey.enabled is true, and redis.url or redis.existingSecret is set: nodes use one of them; leave the "
     "other out"),
    ("a Valkey for trying in production", ["devValkey.enabled=true"],
     "devValkey.enabled is true in production: it has no password and loses everything when it ends. Set redis.url "
     "or redis.existingSecret, or environment: staging"),
    ("a route without a Gateway", ["gatewayApi.enabled=true"],
     "gatewayApi.enabled is true without a Gateway: name one in gatewayApi.parentRefs"),
    ("an Ingress without a host", ["ingress.enabled=true", "ingress.hosts=null"],
     "ingress.enabled is true without a host: set ingress.hosts"),
]


def render(sets):
    arguments = [part for text in sets for part in ("--set", text)]
    return helm("template", RELEASE, CHART, "--values", CHART / "ci/default.yaml", *arguments)


def rendered(values, release=RELEASE):
    """With values as a map, over ci/kustomize.yaml."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        return helm("template", release, CHART, "--values", CHART / "ci/kustomize.yaml", "--values", file.name)


def seen():
    return len(REFUSED) + len(refused_values.REFUSED) + len(TAKEN) + 2


def faults():
    """Each one is refused, in these words."""
    rows = [*REFUSED, *refused_values.REFUSED]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda row: render(row[1]) if isinstance(row[1], list) else rendered(row[1]), rows))
    for (what, given, words), done in zip(rows, answers):
        if done.returncode == 0:
            yield f"{what} is taken: {given}"
        elif words not in " ".join(done.stderr.split()):
            yield f"{what} is refused in other words: {given}\n{done.stderr.strip()}"
    named = rendered({"fullnameOverride": ""}, release="1e5")
    if "the name of the objects is \"1e5-fanfare\": Services must begin with a small letter" not in named.stderr:
        yield f"a release whose name begins with a digit: {named.stderr}"
    for what, sets in TAKEN:
        done = render(sets)
        if done.returncode:
            yield f"{what}: refused: {sets}\n{done.stderr.strip()}"
    together = render(["replicaCount=3", "image.digest=x", "autoscaling.mode=both"]).stderr
    told = [line for line in together.splitlines() if re.match(r"(replicaCount|image\.digest|autoscaling\.mode) is", line)]
    if len(told) != 3:
        yield f"three faults at once are told as {len(told)}:\n{together}"


# Values that look odd and are taken.
TAKEN = [
    ("keys of other charts in global", ["global.storageClass=fast"]),
    ("a bare off, which YAML takes for false", ["autoscaling.mode=false"]),
    ("a grace period that is just long enough", [REDIS, "terminationGracePeriodSeconds=94"]),
    ("no nodes at all", ["replicaCount=0"]),
    ("ports of Redis and of the collector that are given as they are",
     ["redis.url=redis://redis:6380", "telemetry.endpoint=https://collector", "networkPolicy.egress.enabled=true",
      "networkPolicy.egress.redisPorts={6380,16380}", "networkPolicy.egress.collectorPorts={443}"]),
    ("one session a node", [REDIS, "autoscaling.mode=hpa", "config.server.connections_max=1"]),
    ("a login that a container renews",
     ["redis.url=rediss://redis", "extraEnv[0].name=FANFARE_REDIS__PASSWORD_FILE", "extraEnv[0].value=/run/token"]),
    ("a name that is as long as it may be", [f"fullnameOverride={'a' * 46}"]),
]


NOTES = [
    ("default", ["WARNING: there is one node, without Redis.", "port-forward svc/fanfare 8080:80",
                 "helm -n fanfare test fanfare"]),
    ("kustomize", ["http://fanfare-api.fanfare.svc:8081", "get secret fanfare-api -o", "has 94 s for it"]),
    ("ingress-tls", ["wss://fanfare.example.com/v1/connect"]),
    ("gateway-api", ["wss://fanfare.example.com/v1/connect"]),
    ("hpa-small", ["The queue holds 235715 entries", "Do not roll back to a release with a fixed number of nodes"]),
    ("hpa", ["The queue holds 50000 entries", "files/prometheus-adapter.yaml", "metrics-server",
             "adds nodes and never takes one away"]),
    ("keda", ["describe scaledobject fanfare"]),
    ("keda-metrics-api", ["By metrics-api the number of sessions does not count"]),
    ("dev-valkey", ["WARNING: devValkey has no password and no disk."]),
    ("extras", ["WARNING: the Service is a load balancer"]),
]


def notes_faults():
    """What an install says at its end."""
    for file, words in NOTES:
        done = helm("install", RELEASE, CHART, "--namespace", "fanfare", "--dry-run=client",
                    "--values", CHART / f"ci/{file}.yaml")
        said = done.stdout.partition("NOTES:")[2] or done.stderr
        for word in words:
            if word not in said:
                yield f"the notes of {file} do not say {word!r}:\n{said}"
