"""CPU and memory of pods, served as metrics-server does, from what the nodes themselves say on /metrics.

In: the nodes of a Kubelet, asked every few seconds. Out: metrics.k8s.io, which the API server passes on.
Nothing is made up: a pod that says nothing is left out. What custom_metrics.py serves is Prometheus' own.
"""

import collections
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse

from control_plane import until

SCRAPE_S = 2
# Over so many scrapes processor time is taken.
CPU_SCRAPES = 8
RESOURCES = "metrics.k8s.io/v1beta1"
RESOURCE_PATH = re.compile(rf"/apis/{re.escape(RESOURCES)}/namespaces/([^/]+)/pods")
LINE = re.compile(r"^([a-z_]+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)

SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics", "namespace": "kube-system"},
           "spec": {"type": "ExternalName", "externalName": "localhost"}}


class Figures:
    """What each node said last."""

    def __init__(self, kubelet):
        self.kubelet = kubelet
        self.last = {}
        self.cpu = collections.defaultdict(lambda: collections.deque(maxlen=CPU_SCRAPES))
        threading.Thread(target=self.scrape, daemon=True).start()

    def scrape(self):
        while not self.kubelet.ended.is_set():
            found = {}
            for node in self.kubelet.serving():
                text = node.answers("/metrics")
                if text:
                    sums = collections.Counter()
                    for name, value in LINE.findall(text):
                        sums[name] += float(value)
                    found[node] = sums
                    self.cpu[node].append((time.monotonic(), sums["process_cpu_seconds_total"]))
            self.last = found
            self.kubelet.ended.wait(SCRAPE_S)

    def of(self, namespace, selector):
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        return [(node, sums) for node, sums in self.last.items() if node.namespace == namespace
                and wanted.items() <= node.pod["metadata"]["labels"].items()]

    def sum(self, name):
        return sum(sums[name] for sums in self.last.values())

    def cores(self, node):
        (begun, first), (now, last) = self.cpu[node][0], self.cpu[node][-1]
        return (last - first) / (now - begun) if now > begun else None


class MetricsApi:
    def __init__(self, plane, figures):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(plane.keys / "aggregated.crt", plane.keys / "aggregated.key")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(figures))
        self.server.daemon_threads = True
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def register(self, cluster):
        register(cluster, RESOURCES, self.port)

    def stop(self):
        self.server.shutdown()


def register(cluster, served, port):
    """Lets the API server pass an API of others on, from a port of the loopback."""
    cluster.apply(json.dumps(SERVICE))
    group, version = served.split("/")
    place = {"name": "metrics", "namespace": "kube-system", "port": port}
    spec = {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True, "service": place}
    cluster.apply(json.dumps({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                              "metadata": {"name": f"{version}.{group}"}, "spec": spec}))
    until(60, f"{served} is served", lambda: cluster.plane.found(f"/apis/{served}"))


def handler(figures):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """The API server's own log tells of what it passes on."""

        def do_GET(self):
            url = urllib.parse.urlparse(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            answer = answered(figures, url.path, query.get("labelSelector", ""))
            status = 200 if answer else 404
            body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure",
                                         "reason": "NotFound", "code": 404}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def answered(figures, path, selector):
    if path == f"/apis/{RESOURCES}":
        return resources(RESOURCES, [("pods", "PodMetrics", ["get", "list"])])
    asked = RESOURCE_PATH.fullmatch(path)
    if asked:
        items = [usage(node, sums, figures.cores(node)) for node, sums in figures.of(asked[1], selector)
                 if figures.cores(node) is not None]
        return {"kind": "PodMetricsList", "apiVersion": RESOURCES, "metadata": {}, "items": items}
    return None


def resources(served, found):
    rows = [{"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
            for name, kind, verbs in found]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served, "resources": rows}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def usage(node, sums, cores):
    used = {"cpu": f"{round(cores * 1000)}m", "memory": f"{round(sums['process_resident_memory_bytes'])}"}
    return {"metadata": {"name": node.name, "namespace": node.namespace}, "timestamp": now(),
            "window": f"{SCRAPE_S * CPU_SCRAPES}s", "containers": [{"name": node.container["name"], "usage": used}]}
