"""Plays the kubelet for pods that are annotated with kwok_stages.PROCESS: one real `fanfare serve` each.

In: pods that the scheduler has bound to a node. Out: a process with the pod's own arguments, environment
and configuration file, on free ports of the loopback in place of its own; its readiness as the pod's probe
asks for it; on deletion the sleep of preStop, SIGTERM, and an end by force after the grace period. What
else a kubelet does is not played: volumes of other kinds than ConfigMap are a fault.
"""

import base64
import http.client
import itertools
import json
import os
import pathlib
import subprocess
import threading
import time

from control_plane import free_ports
from kwok_stages import PROCESS

ASK_S = 0.5
WATCH_S = 3600
# The keys that say where a node listens, by the name of the port in the pod.
LISTENERS = {"http": "FANFARE_SERVER__LISTEN", "api": "FANFARE_API__LISTEN", "metrics": "FANFARE_METRICS__LISTEN"}


class Node:
    """One pod and its process."""

    def __init__(self, pod, core):
        self.pod, self.core = pod, core
        self.name, self.namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.container = pod["spec"]["containers"][0]
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS))))
        self.ready = self.leaving = False
        self.gone = threading.Event()
        self.grace_s = 0
        # From the deletion to the end of the process, in seconds.
        self.process = self.code = self.leave_s = None
        # Where the pod has a limit of processor time.
        self.group = None

    def forget_group(self):
        if self.group:
            self.group.rmdir()

    def answers(self, path):
        """What the node says on its port for metrics, or nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["metrics"], timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class Kubelet:
    def __init__(self, plane, program):
        self.plane, self.program = plane, program
        self.nodes = {}
        self.faults = []
        self.cores = itertools.cycle(sorted(os.sched_getaffinity(0)))
        self.ended = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def serving(self):
        """Nodes that run and do not leave, in the order in which they came."""
        return [node for node in list(self.nodes.values()) if node.process and not node.leaving]

    def watch(self):
        while not self.ended.is_set():
            try:
                told = self.plane.call("GET", "/api/v1/pods")
                for pod in told["items"]:
                    self.see(pod, "ADDED")
                version = told["metadata"]["resourceVersion"]
                path = f"/api/v1/pods?watch=1&resourceVersion={version}"
                with self.plane.open("GET", path, timeout=WATCH_S) as changes:
                    for line in changes:
                        change = json.loads(line)
                        if change["type"] in ("ADDED", "MODIFIED", "DELETED"):
                            self.see(change["object"], change["type"])
            except (OSError, http.client.HTTPException):
                time.sleep(ASK_S)

    def see(self, pod, kind):
        told = pod["metadata"]
        if PROCESS not in told.get("annotations", {}) or not pod["spec"].get("nodeName"):
            return
        leaving = "deletionTimestamp" in told or kind == "DELETED"
        if told["uid"] not in self.nodes and not leaving:
            node = self.nodes[told["uid"]] = Node(pod, next(self.cores))
            threading.Thread(target=self.life, args=(node,), daemon=True).start()
        node = self.nodes.get(told["uid"])
        if node and leaving and not node.leaving:
            node.grace_s = told.get("deletionGracePeriodSeconds") or 0
            node.leaving = True
            node.gone.set()

    def life(self, node):
        try:
            self.begin(node)
            probe = node.container["readinessProbe"]["httpGet"]["path"]
            ready = None
            while not node.gone.is_set():
                if node.process.poll() is not None:
                    raise OSError(f"it ended with {node.process.returncode}")
                node.ready = node.answers(probe) is not None
                if node.ready != ready:
                    ready = node.ready
                    self.tell(node)
                node.gone.wait(ASK_S)
            self.end(node)
        except (OSError, KeyError) as fault:
            if not self.ended.is_set():
                self.faults.append(f"{node.name}: {fault!r}, log in {self.folder(node)}")

    def folder(self, node):
        return self.plane.folder / "pods" / node.name

    def begin(self, node):
        folder = self.folder(node)
        folder.mkdir(parents=True)
        environment = {"PATH": os.environ["PATH"]}
        for one in node.container["env"]:
            environment[one["name"]] = self.value(node, one)
        for port, key in LISTENERS.items():
            environment[key] = f"127.0.0.1:{node.ports[port]}"
        command = [self.program, *self.arguments(node, folder)]
        limit = node.container.get("resources", {}).get("limits", {}).get("cpu")
        if limit:
            node.group = limited(node.name, cores(limit))
            command = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(node.group), *command]
        else:
            # A core each: a node measures itself by the cores that it may use, and several of them share
            # this machine as they would never share one in a cluster.
            command = ["taskset", "-c", str(node.core), *command]
        with open(folder / "log", "w") as log:
            node.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def value(self, node, one):
        if "value" in one:
            return one["value"]
        source = one["valueFrom"]
        if "secretKeyRef" in source:
            wanted = source["secretKeyRef"]
            data = self.plane.call("GET", f"/api/v1/namespaces/{node.namespace}/secrets/{wanted['name']}")["data"]
            return base64.b64decode(data[wanted["key"]]).decode()
        value = node.pod
        for part in source["fieldRef"]["fieldPath"].split("."):
            value = value[part]
        return value

    def arguments(self, node, folder):
        """Those of the container, with its configuration file where it lies here."""
        arguments = node.container["args"]
        volumes = {volume["name"]: volume for volume in node.pod["spec"]["volumes"]}
        for mount in node.container["volumeMounts"]:
            config = volumes[mount["name"]]["configMap"]["name"]
            data = self.plane.call("GET", f"/api/v1/namespaces/{node.namespace}/configmaps/{config}")["data"]
            for file, text in data.items():
                (folder / file).write_text(text)
            arguments = [one.replace(mount["mountPath"], str(folder)) for one in arguments]
        return arguments

    def tell(self, node):
        """The status of the pod, as a kubelet writes it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = "True" if node.ready else "False"
        conditions = [{"type": kind, "status": "True" if kind == "Initialized" else said, "lastTransitionTime": now}
                      for kind in ("Initialized", "Ready", "ContainersReady")]
        container = {"name": node.container["name"], "image": node.container["image"], "imageID": "",
                     "ready": node.ready, "restartCount": 0, "state": {"running": {"startedAt": now}}}
        status = {"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": [container],
                  # Nobody goes there; an address of the loopback would be refused for a Service.
                  "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
        self.plane.call("PATCH", f"{node.path}/status", {"status": status}, "application/merge-patch+json")

    def end(self, node):
        begun = time.monotonic()
        time.sleep(min(node.grace_s, node.container["lifecycle"]["preStop"]["sleep"]["seconds"]))
        node.process.terminate()
        try:
            node.code = node.process.wait(max(0.1, begun + node.grace_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            node.process.kill()
            node.code = node.process.wait()
            self.faults.append(f"{node.name} did not end within its grace period of {node.grace_s} s")
        node.leave_s = time.monotonic() - begun
        node.forget_group()
        # A kubelet takes the pod away in the same words.
        self.plane.call("DELETE", node.path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                                              "preconditions": {"uid": node.pod["metadata"]["uid"]}})

    def stop(self):
        self.ended.set()
        for node in list(self.nodes.values()):
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()
                node.forget_group()


def cores(quantity):
    """A quantity of Kubernetes as a number: "250m" is a quarter."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def limited(name, limit):
    """A control group that has no more processor time than the pod's limit."""
    newer = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = pathlib.Path("/sys/fs/cgroup" if newer else "/sys/fs/cgroup/cpu") / f"fanfare-kube-{name}"
    group.mkdir(exist_ok=True)
    period = 100_000
    if newer:
        (group / "cpu.max").write_text(f"{int(limit * period)} {period}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(period))
        (group / "cpu.cfs_quota_us").write_text(str(int(limit * period)))
    return group
