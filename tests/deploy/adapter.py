"""The rules for prometheus-adapter, asked of a real Prometheus as the adapter asks it.

In: files/prometheus-adapter.yaml; node.prom, lines of a page that a node gave, whose numbers are made others
for each series here, so that a sum is no mean and no count; Debian's Prometheus, which scrapes them as three
pods in two namespaces; the HPAs of the renderings. Out: metrics that an HPA asks for and does not get, or
whose values are not the sums over the series of each pod. The adapter itself is in tests/kube.
"""

import http.server
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

from objects import CHART, ROOT, autoscalers
from rules_running import asked_metrics

RULES = CHART / "files/prometheus-adapter.yaml"
PAGE = ROOT / "tests/deploy/node.prom"
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? [0-9.eE+-]+$")
NAMESPACE = "fanfare"
PODS = [(NAMESPACE, "fanfare-0"), (NAMESPACE, "fanfare-1"), ("others", "fanfare-0")]
WAIT_S = 30


def page_of(number):
    """The page of a pod, and the sum of each metric over its series."""
    lines, sums = [], {}
    for line in PAGE.read_text().splitlines():
        sample = SAMPLE.match(line)
        if sample:
            value = 1000 * (number + 1) + 7 * len(lines)
            sums[sample[1]] = sums.get(sample[1], 0) + value
            line = f"{line.rpartition(' ')[0]} {value}"
        lines.append(line)
    return "\n".join(lines) + "\n", sums


def page_faults():
    """The page is one of these nodes: its metrics and their labels are those of docs/metrics.md."""
    known = (ROOT / "docs/metrics.md").read_text()
    for name, labels in {(s[1], s[2]) for s in map(SAMPLE.match, PAGE.read_text().splitlines()) if s}:
        row = re.search(rf"^\| `{name}` \|.*$", known, re.MULTILINE)
        if not row or any(f"`{label}`" not in row[0] for label in (labels or "").split(",") if label):
            yield f"{PAGE.name} has {name} with {labels}, which docs/metrics.md has not: record it anew"


def served(text):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Prometheus:
    """Scrapes pages with the labels that the ServiceMonitor gives them."""

    def __init__(self, pages, folder):
        self.pages = [served(text) for text in pages]
        targets = [{"targets": [f"127.0.0.1:{server.server_port}"],
                    "labels": {"namespace": space, "pod": pod, "service": "fanfare-metrics", "endpoint": "metrics"}}
                   for server, (space, pod) in zip(self.pages, PODS)]
        file = Path(folder) / "prometheus.json"
        file.write_text(json.dumps({"global": {"scrape_interval": "1s"},
                                    "scrape_configs": [{"job_name": "fanfare", "static_configs": targets}]}))
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.process = subprocess.Popen(
            [os.environ["PROMETHEUS"], f"--config.file={file}", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stdout=subprocess.DEVNULL)

    def ask(self, path, **what):
        with urllib.request.urlopen(f"{self.url}/{path}?{urllib.parse.urlencode(what)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def is_ready(self):
        try:
            return len(self.ask("query", query="up == 1")["result"]) == len(PODS)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait()
        for server in self.pages:
            server.shutdown()
            server.server_close()


def offered(prometheus, rule):
    """{name under which the adapter offers it: name of the series}, of one rule."""
    series = {one["__name__"] for one in prometheus.ask("series", **{"match[]": rule["seriesQuery"]})}
    name = rule.get("name", {})
    matches = {one: re.search(name.get("matches", ".*"), one) for one in series}
    return {name.get("as") or one: one for one, found in matches.items() if found}


def values(prometheus, rule, series):
    """What the adapter answers for all pods of the namespace: {pod: value}."""
    labels = {what["resource"]: label for label, what in rule["resources"]["overrides"].items()}
    if not {"namespace", "pod"} <= set(labels):
        return {}
    pods = "|".join(pod for space, pod in PODS if space == NAMESPACE)
    query = rule["metricsQuery"]
    for part, text in (("Series", series), ("GroupBy", labels["pod"]),
                       ("LabelMatchers", f'{labels["namespace"]}="{NAMESPACE}",{labels["pod"]}=~"{pods}"')):
        query = query.replace(f"<<.{part}>>", text)
    found = prometheus.ask("query", query=query)["result"]
    return {one["metric"].get(labels["pod"]): float(one["value"][1]) for one in found}


def faults_of(prometheus, wanted, sums):
    rules = yaml.safe_load(RULES.read_text())["rules"]["custom"]
    found = {}
    for rule in rules:
        for label, series in offered(prometheus, rule).items():
            found[label] = values(prometheus, rule, series)
    for metric in sorted(wanted):
        right = {pod: float(sums[number][metric]) for number, (space, pod) in enumerate(PODS) if space == NAMESPACE}
        if found.get(metric) != right:
            yield f"an HPA that asks for {metric} gets {found.get(metric)}, and nodes have {right}"


def check(groups):
    wanted = {metric for objects in groups.values() for found in autoscalers(objects)
              for metric, source in asked_metrics(found) if source == "pods"}
    # Which of the two is asked for is a value.
    wanted |= {"fanfare_queue_depth"}
    pages, sums = zip(*(page_of(number) for number in range(len(PODS))))
    faults = list(page_faults())
    with tempfile.TemporaryDirectory() as folder:
        prometheus = Prometheus(pages, folder)
        try:
            end = time.monotonic() + WAIT_S
            while not prometheus.is_ready():
                if time.monotonic() > end:
                    return 0, [f"Prometheus did not scrape {len(PODS)} pages within {WAIT_S} s"]
                time.sleep(0.2)
            return len(wanted) * len(PODS), faults + list(faults_of(prometheus, wanted, sums))
        finally:
            prometheus.stop()
