"""What all checks use: kubectl and helm against the control plane, namespaces, and how checks tell what
they saw.

In: a running control plane; HELM from the environment. Out: outputs of commands. A fault is an exception
with words that say what was wanted and what came.
"""

import itertools
import json
import os
import subprocess
import time

from control_plane import BIN, ROOT, Fault

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
ROLLOUT = "--timeout=120s"
NUMBERS = itertools.count(1)


def expect(right, words):
    if not right:
        raise Fault(words)


class Cluster:
    """The commands, against one control plane, with chart and k8s/ below `root`."""

    def __init__(self, plane, root=ROOT):
        self.plane, self.root = plane, root
        self.chart = root / "helm/fanfare"
        self.environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig),
                            # Helm and kubectl keep their caches with the run.
                            "HOME": str(plane.folder), "XDG_CACHE_HOME": str(plane.folder / "cache")}

    def ran(self, *command, text=None):
        return subprocess.run([str(part) for part in command], input=text, text=True, capture_output=True,
                              env=self.environment)

    def kubectl(self, *arguments, text=None):
        done = self.ran(BIN / "kubectl", *arguments, text=text)
        expect(done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def objects(self, *arguments, text=None):
        """What kubectl says as JSON, as a list."""
        told = self.kubectl(*arguments, "-o", "json", text=text)
        return listed(json.loads(told)) if told.strip() else []

    def apply(self, text, *arguments):
        """Server-side: the API server judges every object. A warning is a fault."""
        return self.kubectl("apply", "--server-side", "--warnings-as-errors", "-f", "-", *arguments, text=text)

    def refused(self, text, words):
        """Asks the API server to take an object, which it must refuse in these words."""
        done = self.ran(BIN / "kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-", text=text)
        expect(done.returncode != 0, f"this was taken and must be refused ({words}):\n{text}")
        expect(words in done.stderr, f"refused in other words than {words!r}: {done.stderr.strip()}")
        return done.stderr.strip()

    def helm(self, *arguments):
        done = self.ran(os.environ["HELM"], *arguments)
        expect(done.returncode == 0, f"helm {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        warned = [line for line in done.stderr.splitlines() if "warning" in line.lower()]
        expect(not warned, f"helm {' '.join(map(str, arguments))} was warned: {warned}")
        return done.stdout

    def restricted_namespace(self, name):
        """A new one, whose name begins so: a check may run more than once."""
        name = f"{name}-{next(NUMBERS)}"
        self.plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}})
        return name

    def rolled_out(self, namespace):
        """Every Deployment has all its pods, of its newest version, ready."""
        for found in self.objects("get", "deployments", "-n", namespace):
            self.kubectl("rollout", "status", f"deployment/{found['metadata']['name']}", "-n", namespace, ROLLOUT)


def listed(told):
    return told["items"] if told["kind"] == "List" or told["kind"].endswith("List") else [told]


def name(found):
    return f"{found['kind']} {found['metadata']['name']}"


def tell(check, count, words, begun):
    expect(count > 0, "it found nothing to look at")
    print(f"{check}: {count} {words}, {time.monotonic() - begun:.1f} s", flush=True)
