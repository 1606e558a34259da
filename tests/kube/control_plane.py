"""A Kubernetes control plane of real components, without a kubelet, for one run.

In: target/kube/bin, as tests/kube/build makes it. Out: processes on free ports of the loopback, whose
logs and state lie in one folder; nodes by kwok. What it cannot show: nothing runs containers, so there is
no traffic through Services, no NetworkPolicy, no probe and no pull, apart from what node_processes.py
plays. When it ends, its processes have ended.
"""

import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import certificates
import kwok_stages

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "target/kube/bin"
READY_S = 180
# One more than the replicas of any of the chart's files: where each pod must have a node of its own, an
# update needs one that is free.
NODES = 6
STOP_S = 20


class Fault(Exception):
    """What was seen is not what must be seen."""


class ControlPlane:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fanfare-kube-"))
        self.keys = self.folder / "keys"
        self.running = []
        # Whoever finds a fault wants the logs.
        self.keep = False
        names = ("api", "etcd", "peers", "controllers", "scheduler", "kwok")
        self.ports = dict(zip(names, free_ports(len(names))))
        self.url = f"https://127.0.0.1:{self.ports['api']}"
        self.kubeconfig = self.keys / "admin.kubeconfig"

    def __enter__(self):
        begun = time.monotonic()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        print(f"control plane: {len(self.running)} processes, {NODES} nodes ready, "
              f"{time.monotonic() - begun:.1f} s, logs in {self.folder}", flush=True)
        return self

    def __exit__(self, kind, error, trace):
        self.stop()
        if kind is None and not self.keep:
            shutil.rmtree(self.folder)

    def start(self):
        self.token = certificates.make(self.keys, self.ports["api"])
        self.tls = ssl.create_default_context(cafile=self.keys / "ca.crt")
        self.start_etcd()
        self.start_api_server()
        until(READY_S, "the API server is ready", self.is_ready)
        self.start_controllers()
        self.start_kwok()
        self.make_nodes()

    def start_etcd(self):
        client, peers = (f"http://127.0.0.1:{self.ports[name]}" for name in ("etcd", "peers"))
        self.run("etcd", f"--data-dir={self.folder}/etcd", f"--listen-client-urls={client}",
                 f"--advertise-client-urls={client}", f"--listen-peer-urls={peers}",
                 f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
                 "--unsafe-no-fsync", "--log-level=warn")

    def start_api_server(self):
        keys = self.keys
        self.run("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.ports['etcd']}",
                 "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.ports['api']}",
                 "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
                 f"--tls-cert-file={keys}/apiserver.crt", f"--tls-private-key-file={keys}/apiserver.key",
                 f"--client-ca-file={keys}/ca.crt", f"--token-auth-file={keys}/tokens.csv",
                 "--authorization-mode=RBAC", "--anonymous-auth=false",
                 # Without it a privileged pod is refused by this flag, and not by Pod Security.
                 "--allow-privileged=true",
                 "--service-account-issuer=https://kubernetes.default.svc",
                 f"--service-account-key-file={keys}/accounts.pub",
                 f"--service-account-signing-key-file={keys}/accounts.key",
                 f"--requestheader-client-ca-file={keys}/front-proxy-ca.crt",
                 "--requestheader-allowed-names=front-proxy-client",
                 "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
                 "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                 f"--proxy-client-cert-file={keys}/front-proxy-client.crt",
                 f"--proxy-client-key-file={keys}/front-proxy-client.key")

    def start_controllers(self):
        self.run("kube-controller-manager", *self.as_client("controller-manager"), "--bind-address=127.0.0.1",
                 f"--secure-port={self.ports['controllers']}", "--leader-elect=false", "--kube-api-qps=500",
                 "--kube-api-burst=1000", "--use-service-account-credentials=true",
                 f"--service-account-private-key-file={self.keys}/accounts.key",
                 f"--root-ca-file={self.keys}/ca.crt",
                 # How often the HPA looks is as it is by default: 15 s. A new pod's processor time counts at once.
                 "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
                 "--horizontal-pod-autoscaler-cpu-initialization-period=1s")
        self.run("kube-scheduler", *self.as_client("scheduler"), "--bind-address=127.0.0.1",
                 f"--secure-port={self.ports['scheduler']}", "--leader-elect=false")

    def as_client(self, name):
        file = self.keys / f"{name}.kubeconfig"
        return [f"--{flag}kubeconfig={file}" for flag in ("", "authentication-", "authorization-")]

    def start_kwok(self):
        told = subprocess.run(["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"], text=True,
                              capture_output=True, check=True, cwd=Path(__file__).parent / "modules/kwok")
        stages = self.folder / "stages.yaml"
        stages.write_text(kwok_stages.configuration(told.stdout.strip()))
        self.run("kwok", f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes=true", f"--config={stages}",
                 # Without leases nodes are given up after 50 s, and their pods with them.
                 "--node-lease-duration-seconds=40", "--node-port=0",
                 f"--server-address=127.0.0.1:{self.ports['kwok']}")

    def make_nodes(self):
        for number in range(NODES):
            name = f"kwok-{number}"
            labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
                      "topology.kubernetes.io/zone": f"zone-{number % 3}"}
            self.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        until(READY_S, "nodes are ready", self.nodes_are_ready)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        until(READY_S, "the default account is there", lambda: self.found(account))

    def nodes_are_ready(self):
        nodes = self.call("GET", "/api/v1/nodes")["items"]
        ready = [node for node in nodes for one in node["status"].get("conditions", [])
                 if (one["type"], one["status"]) == ("Ready", "True")]
        return len(ready) == NODES

    def run(self, program, *arguments):
        with open(self.folder / f"{program}.log", "w") as log:
            self.running.append((program, subprocess.Popen([BIN / program, *arguments], stdout=log, stderr=log)))

    def is_ready(self):
        for program, process in self.running:
            if process.poll() is not None:
                log = (self.folder / f"{program}.log").read_text()
                raise Fault(f"{program} ended with {process.returncode}:\n{log[-2000:]}")
        return self.found("/readyz")

    def found(self, path):
        try:
            with self.open("GET", path):
                return True
        except OSError:
            return False

    def open(self, method, path, body=None, kind="application/json", timeout=20):
        """A call of the Kubernetes API, as admin."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        return urllib.request.urlopen(request, context=self.tls, timeout=timeout)

    def call(self, method, path, body=None, kind="application/json"):
        with self.open(method, path, body, kind) as answer:
            return json.load(answer)

    def stop(self):
        # Whoever asks again would leave some of them behind.
        for asked in (signal.SIGTERM, signal.SIGINT):
            signal.signal(asked, signal.SIG_IGN)
        # The last to start is the first to end, so that none complains about another.
        for _, process in reversed(self.running):
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


def free_ports(count):
    """They are free now. Nobody else is told of them, so they are mostly free a moment later, too."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(seconds, what, done, every=0.2):
    """Waits until something is so, and returns what it is."""
    end = time.monotonic() + seconds
    while True:
        value = done()
        if value:
            return value
        if time.monotonic() > end:
            raise Fault(f"not within {seconds} s: {what}")
        time.sleep(every)
