"""custom.metrics.k8s.io as in a cluster: Debian's Prometheus scrapes the nodes, prometheus-adapter asks it.

In: the nodes of a Kubelet, helm/fanfare/files/prometheus-adapter.yaml. Out: both processes, with the
intervals that they have by default: a scrape each 15 s, by the labels that the ServiceMonitor gives, and the
adapter's list of metrics each 30 s. The nodes are given to Prometheus by a file, since there is no network of
pods from which an operator could take them.
"""

import json
import shutil
import subprocess
import threading
from pathlib import Path

from control_plane import BIN, free_ports
from metrics_api import register

SCRAPE_S = 15
RELIST_S = 30
TARGETS_S = 1
SERVED = "custom.metrics.k8s.io/v1beta2"


class CustomMetrics:
    def __init__(self, plane, kubelet, root):
        self.plane, self.kubelet = plane, kubelet
        self.folder = plane.folder / "custom-metrics"
        self.folder.mkdir()
        self.ended = threading.Event()
        self.prometheus_port, self.port = free_ports(2)
        self.written = None
        self.write_targets()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()
        self.running = [self.start_prometheus(), self.start_adapter(root)]

    def start_prometheus(self):
        scrape = {"job_name": "fanfare", "file_sd_configs": [{"files": [str(self.folder / "targets.json")],
                                                              "refresh_interval": "5s"}]}
        file = self.folder / "prometheus.json"
        file.write_text(json.dumps({"global": {"scrape_interval": f"{SCRAPE_S}s"}, "scrape_configs": [scrape]}))
        return self.run(shutil.which("prometheus"), f"--config.file={file}",
                        f"--storage.tsdb.path={self.folder}/data",
                        f"--web.listen-address=127.0.0.1:{self.prometheus_port}")

    def start_adapter(self, root):
        # Its chart makes a file of what stands under rules.custom, which is the last key there.
        values = (root / "helm/fanfare/files/prometheus-adapter.yaml").read_text()
        file = self.folder / "rules.yaml"
        file.write_text("rules:\n" + values.partition("\n  custom:\n")[2])
        keys = self.plane.keys
        return self.run(BIN / "prometheus-adapter", f"--prometheus-url=http://127.0.0.1:{self.prometheus_port}",
                        f"--config={file}", f"--metrics-relist-interval={RELIST_S}s", "--bind-address=127.0.0.1",
                        f"--secure-port={self.port}", f"--tls-cert-file={keys}/aggregated.crt",
                        f"--tls-private-key-file={keys}/aggregated.key",
                        *(f"--{what}-kubeconfig={self.plane.kubeconfig}"
                          for what in ("lister", "authentication", "authorization")))

    def run(self, program, *arguments):
        with open(self.folder / f"{Path(program).name}.log", "w") as log:
            return subprocess.Popen([program, *arguments], stdout=log, stderr=log)

    def follow(self):
        while not self.ended.wait(TARGETS_S):
            self.write_targets()

    def write_targets(self):
        """Each node with the labels that it has by the ServiceMonitor."""
        targets = [{"targets": [f"127.0.0.1:{node.ports['metrics']}"],
                    "labels": {"namespace": node.namespace, "pod": node.name, "endpoint": "metrics"}}
                   for node in self.kubelet.serving()]
        if targets != self.written:
            file = self.folder / "targets.new"
            file.write_text(json.dumps(targets))
            # Prometheus never sees half of it.
            file.rename(self.folder / "targets.json")
            self.written = targets

    def register(self, cluster):
        register(cluster, SERVED, self.port)

    def stop(self):
        self.ended.set()
        self.thread.join()
        for process in self.running:
            process.terminate()
            process.wait()
