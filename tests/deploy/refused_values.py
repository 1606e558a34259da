"""Values over ci/kustomize.yaml that the chart refuses, each with the words in which it does.

In: nothing. Out: REFUSED, rows of what, values, words; bad_values.py tries them. Where a schema refuses, the
place of the value is what is looked for.
"""

HPA = {"autoscaling": {"mode": "hpa"}}
SECRET_ADDRESS = {"redis": {"url": "", "existingSecret": "fanfare-redis"}}


def env(name, value="1"):
    return {"extraEnv": [{"name": name, "value": value}]}


def scaled(**more):
    return {"autoscaling": {"mode": "hpa", **more}}


def route(**more):
    return {"gatewayApi": {"enabled": True, "parentRefs": [{"name": "public"}], **more}}


def ingress(**more):
    return {"ingress": {"enabled": True, **more}}


def path(text):
    return ingress(hosts=[{"host": "h.example.com", "paths": [{"path": text, "pathType": "Prefix"}]}])


def egress(**more):
    return {"networkPolicy": {"egress": {"enabled": True, **more}}}


SCALING = [
    ("a queue that cannot ask for the most nodes", {**HPA, "config": {"queue": {"capacity": 47142}}},
     "config.queue.capacity is 47142, and the queue could never ask for autoscaling.maxReplicas, 30 nodes of "
     "autoscaling.queueTarget, 1000 each: priority low is refused from 70 % of the capacity on, and an autoscaler "
     "goes up from 10 % above its target. Set at least 47143 or leave it out, or set a smaller maxReplicas or "
     "queueTarget"),
    ("a queue that nothing could hold", scaled(maxReplicas=100000),
     "asks for a queue of 157142858 entries, and it holds at most 100000000"),
    ("percent of a request that is not there", {**HPA, "resources": {"limits": {"memory": "1Gi"}}},
     "autoscaling.cpuPercent is 70, of a request that resources does not have, so that the autoscaler never takes a "
     "node away: set resources.requests.cpu, or cpuPercent: 0"),
    ("KEDA that asks the API for sessions alone",
     {"autoscaling": {"mode": "keda", "queueTarget": 0, "cpuPercent": 0, "memoryPercent": 0,
                      "keda": {"trigger": "metrics-api"}}},
     "autoscaling.mode is keda, and nothing counts: set one of queueTarget, sessionsPercent, cpuPercent and "
     "memoryPercent; by trigger metrics-api sessions do not count"),
    ("a budget of no node away", {"podDisruptionBudget": {"maxUnavailable": 0}},
     "podDisruptionBudget.maxUnavailable is 0: no machine could ever be maintained. Set at least 1"),
    ("a budget that keeps all nodes", {"podDisruptionBudget": {"minAvailable": 3}},
     "podDisruptionBudget.minAvailable is 3, and there may be only 3 nodes, of which it keeps 3: no machine could be "
     "maintained. Set less, or maxUnavailable: 1"),
    ("a budget that keeps all nodes by rounding", {**HPA, "podDisruptionBudget": {"minAvailable": "75%"}},
     "podDisruptionBudget.minAvailable is 75%, and there may be only 3 nodes, of which it keeps 3"),
]

SECRETS = [
    *((f"headers of {signal} in the ConfigMap", {"config": {"telemetry": {f"{signal}_headers": ["a=b"]}}},
       f"at '/config/telemetry': additional properties '{signal}_headers' not allowed")
      for signal in ("traces", "logs", "metrics")),
    ("a secret of a token key in the ConfigMap",
     {"config": {"auth": {"keys": [{"algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef"}]}}},
     "at '/config/auth/keys/0': additional properties 'secret' not allowed"),
    ("a login in the address of a collector", {"telemetry": {"endpoint": "http://u:p@collector:4318"}},
     "at '/telemetry/endpoint': 'http://u:p@collector:4318' does not match pattern"),
    ("a login in the address of one signal", {"config": {"telemetry": {"traces_endpoint": "http://u:p@c:4318"}}},
     "at '/config/telemetry/traces_endpoint': 'http://u:p@c:4318' does not match pattern"),
    ("a secret variable in plain text", env("FANFARE_TELEMETRY__TRACES_HEADERS", "a=b"),
     "extraEnv has FANFARE_TELEMETRY__TRACES_HEADERS in plain text, which everybody could read who may see the "
     "release: take it from a Secret, by valueFrom.secretKeyRef"),
    ("two token secrets", {"auth": {"hmacSecret": "0123456789abcdef0123456789abcdef"}},
     "auth.hmacSecret and auth.existingSecret are set: the first would do nothing; leave one of them out"),
    ("two lists of keys", {"api": {"keys": ["0123456789abcdef"]}},
     "api.keys and api.existingSecret are set: the first would do nothing; leave one of them out"),
    ("a key with a space", {"api": {"existingSecret": "", "keys": ["with space 1234567890"]}},
     "or has something else than printable ASCII without spaces and commas"),
    ("one key and all keys in one place", {"api": {"secretKeys": {"key": "api-keys"}}},
     "api.secretKeys.key and api.secretKeys.keys are both \"api-keys\": helm test and KEDA send what stands under the "
     "first as one key, which fails as soon as there are two. Put one key alone under a name of its own"),
    ("headers for nobody", {"telemetry": {"headers": {"existingSecret": "collector"}}},
     "telemetry.headers.existingSecret is set, and there is no collector to send them to"),
    ("shards of no Secret", {"redis": {"existingSecret": "", "secretKeys": {"shards": "others"}}},
     "redis.secretKeys.shards is set without a Secret that has it: set redis.existingSecret"),
]

VARIABLES = [
    ("a variable that changes the grace period", env("FANFARE_DRAIN__WINDOW_MS", "600000"),
     "extraEnv has FANFARE_DRAIN__WINDOW_MS, and the chart would not see it: set drain.windowMs"),
    ("a variable that changes the target of sessions", env("FANFARE_SERVER__CONNECTIONS_MAX"),
     "extraEnv has FANFARE_SERVER__CONNECTIONS_MAX, and the chart would not see it: set "
     "config.server.connections_max"),
    ("a variable that the chart sets", env("FANFARE_SIZE", "large"),
     "extraEnv has FANFARE_SIZE, and the chart would not see it: set size"),
    ("a variable behind a template", env("FANFARE_{{ \"SIZE\" }}", "large"),
     "extraEnv has FANFARE_SIZE, and the chart would not see it: set size"),
    ("a variable twice", {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
     "extraEnv has A twice: leave one of them out"),
]

NAMES = [
    ("a name with a dot", {"fullnameOverride": "a.b"}, "at '/fullnameOverride': 'a.b' does not match pattern"),
    ("a name that begins with a digit", {"fullnameOverride": "1a"},
     "at '/fullnameOverride': '1a' does not match pattern"),
    ("a label that pods are selected by", {"podLabels": {"app.kubernetes.io/component": "web"}},
     "podLabels has app.kubernetes.io/component, which the chart sets itself and selects pods by: leave it out"),
    ("a common label that pods are selected by", {"commonLabels": {"app.kubernetes.io/name": "x"}},
     "commonLabels has app.kubernetes.io/name, which the chart sets itself and selects pods by: leave it out"),
    ("a label twice", {"commonLabels": {"team": "a"}, "podLabels": {"team": "b"}},
     "podLabels has team, which commonLabels has too: leave it out in one of them"),
    *((f"an annotation of {place} that is no text", {place: {"annotations": {"a": 3600}}},
       f"at '/{place}/annotations/a': got number, want string")
      for place in ("service", "apiService", "ingress", "gatewayApi", "serviceAccount")),
    ("an annotation of pods that is no text", {"podAnnotations": {"a": True}},
     "at '/podAnnotations/a': got boolean, want string"),
    ("a label that is no text", {"service": {"labels": {"a": 1}}}, "at '/service/labels/a': got number, want string"),
]

COMING_IN = [
    *((f"{key} of a Service inside the cluster", {"service": {key: value}},
       f"service.{key} is set, and service.type is ClusterIP")
      for key, value in (("nodePort", 30000), ("externalTrafficPolicy", "Local"), ("loadBalancerClass", "x/y"),
                         ("loadBalancerSourceRanges", ["203.0.113.0/24"]))),
    ("a protocol that is none", {"service": {"appProtocol": "web socket"}}, "at '/service/appProtocol'"),
    ("a timeout without a unit", route(timeouts={"request": "30"}), "at '/gatewayApi/timeouts/request'"),
    ("a host name with a port", route(hostnames=["a:8080"]), "at '/gatewayApi/hostnames/0'"),
    ("a path with a space", route(path="/a #b"), "at '/gatewayApi/path'"),
    ("a path of an Ingress with a space", path("/x: y"), "at '/ingress/hosts/0/paths/0/path'"),
    ("an unknown key of a certificate", ingress(tls=[{"secret": "x"}]),
     "at '/ingress/tls/0': additional properties 'secret' not allowed"),
    ("an unknown key of a peer", {"networkPolicy": {"apiFrom": [{"namespace": "a"}]}},
     "at '/networkPolicy/apiFrom/0': additional properties 'namespace' not allowed"),
    ("an interval that is none", {"metrics": {"serviceMonitor": {"interval": "often"}}},
     "at '/metrics/serviceMonitor/interval'"),
    ("a scrape that takes longer than its interval",
     {"metrics": {"serviceMonitor": {"interval": "5s", "scrapeTimeout": "10s"}}},
     "metrics.serviceMonitor.scrapeTimeout is 10s, longer than interval, 5s, and Prometheus takes no such thing"),
    ("a wait that no update survives", {"minReadySeconds": 900}, "at '/minReadySeconds': maximum: got 900, want 599"),
    *((f"the address {address!r} to listen on", {"listenAddress": address}, "at '/listenAddress': value must be one of")
      for address in ("", "::", "localhost", "127.0.0.1")),
]

REDIS = [
    ("an address without a scheme", {"redis": {"url": "redis:6379"}}, "at '/redis/url'"),
    ("an address of something else", {"redis": {"url": "http://redis"}}, "at '/redis/url'"),
    ("sentinels without a master", {"redis": {"url": "redis-sentinel://sentinel:26379"}},
     "redis.url names sentinels and no master: add ?master=NAME"),
    ("a certificate without its key",
     {"redis": {"url": "rediss://redis", "tls": {"existingSecret": "tls", "certificateKey": "tls.crt"}}},
     "redis.tls has one of certificateKey and privateKeyKey"),
    ("a certificate of no Secret",
     {"redis": {"url": "rediss://redis", "tls": {"certificateKey": "tls.crt", "privateKeyKey": "tls.key"}}},
     "redis.tls.certificateKey is set without a Secret that has it: set redis.tls.existingSecret"),
    ("certificates without TLS", {"redis": {"tls": {"serverName": "redis.internal"}}},
     "redis.tls is set, and redis.url asks for no TLS"),
    ("a policy that cannot see the port of Redis", {**SECRET_ADDRESS, **egress()},
     "networkPolicy.egress.enabled is true, and an address of Redis is in a Secret, so that its port cannot be seen: "
     "set networkPolicy.egress.redisPorts, with the ports of sentinels"),
    ("a policy that cuts Redis off", {"redis": {"url": "redis://redis:6380"}, **egress(redisPorts=[6379])},
     "redis.url has the port 6380, which networkPolicy.egress.redisPorts leaves out"),
    ("a policy that cuts the collector off",
     {"telemetry": {"endpoint": "https://collector"}, **egress(collectorPorts=[4318])},
     "https://collector has the port 443, which networkPolicy.egress.collectorPorts leaves out"),
]

CONFIG = [
    ("a lease that is too short for commands", {"config": {"redis": {"command_timeout_ms": 10000}}},
     "config.redis.lease_ms is 5000, and config.redis.command_timeout_ms is 10000: set it to at least 25000"),
    ("a silence that is shorter than pings", {"config": {"session": {"ping_ms": 60000}}},
     "config.session.pong_ms is 60000, and config.session.ping_ms is 60000: set it to at least 90000"),
    ("more partitions than a lease can hold", {"config": {"redis": {"partitions": 16384, "lease_ms": 4000,
                                                                    "command_timeout_ms": 1000}}},
     "config.redis.partitions is 16384, more than 4 for each millisecond of config.redis.lease_ms, 4000"),
    ("a cookie without origins", {"config": {"auth": {"cookie": "token"}}},
     "config.auth.cookie is set without config.auth.origins"),
    ("a token key without anything", {"config": {"auth": {"keys": [{"algorithm": "ES256"}]}}},
     "config.auth.keys[0] has algorithm ES256 and []: it takes exactly one of public_key, public_key_env, public_key_file"),
    ("a token key of another kind", {"config": {"auth": {"keys": [{"algorithm": "HS256", "public_key_file": "/x"}]}}},
     "config.auth.keys[0] has algorithm HS256 and [public_key_file]: it takes exactly one of secret_env, "
     "secret_file"),
    ("a token key of an issuer without anything",
     {"config": {"auth": {"issuers": [{"issuer": "a", "keys": [{"algorithm": "ES256"}]}]}}},
     "config.auth.issuers[0].keys[0] has algorithm ES256 and []: it takes exactly one of public_key, "
     "public_key_env, public_key_file"),
    ("an issuer without keys", {"config": {"auth": {"issuers": [{"issuer": "a"}]}}}, "at '/config/auth/issuers/0'"),
    ("an issuer by http", {"config": {"auth": {"issuers": [{"issuer": "a", "jwks_url": "http://a.example"}]}}},
     "at '/config/auth/issuers/0/jwks_url'"),
    ("a client with its key", {"config": {"api": {"clients": [{"name": "a", "key_sha256": "ffk_secret",
                                                              "scopes": ["read"]}]}}},
     "at '/config/api/clients/0/key_sha256'"),
    ("a client without scopes", {"config": {"api": {"clients": [{"name": "a", "key_sha256": "0" * 64}]}}},
     "at '/config/api/clients/0': missing property 'scopes'"),
    ("a level that is none", {"config": {"log": {"level": "verbose"}}}, "at '/config/log/level'"),
    ("an origin with a path", {"config": {"auth": {"origins": ["https://a.example.com/"]}}},
     "at '/config/auth/origins/0'"),
    ("a prefix with a space", {"config": {"redis": {"prefix": "a b"}}}, "at '/config/redis/prefix'"),
    ("a namespace with a space", {"config": {"namespaces": {"a b": {}}}}, "invalid propertyName 'a b'"),
    ("an attribute without a value", {"config": {"telemetry": {"resource_attributes": ["a b"]}}},
     "at '/config/telemetry/resource_attributes/0'"),
]

REFUSED = [*SCALING, *SECRETS, *VARIABLES, *NAMES, *COMING_IN, *REDIS, *CONFIG]
