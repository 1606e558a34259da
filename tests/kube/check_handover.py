"""Turning the autoscaler on and off, as docs/kubernetes.md says it: the number of nodes stays as it was.

In: the chart with Helm 4, a release of Helm 3, k8s/base by kubectl. Out: without the handover the chart
refuses, in words with the command; after that command the Deployment never has fewer nodes than before.
"""

import os
import threading
import time

from commands import expect, tell
from control_plane import BIN

RELEASE = "fanfare"
NODES = 5
# Longer than an HPA takes for its next look.
WATCH_S = 20
VALUES = ("--set", "minReadySeconds=0", "--set", f"replicaCount={NODES}")
HPA = ("--set", "autoscaling.mode=hpa", "--set", f"autoscaling.minReplicas={NODES}", "--set", "minReadySeconds=0")


class Watch:
    """The fewest nodes that the Deployment was asked for while this is open, and a while longer."""

    def __init__(self, cluster, namespace):
        self.path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{RELEASE}"
        self.plane, self.seen, self.ended = cluster.plane, [], threading.Event()

    def look(self):
        while not self.ended.wait(0.05):
            self.seen.append(self.plane.call("GET", self.path)["spec"]["replicas"])

    def __enter__(self):
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        time.sleep(0 if kind else WATCH_S)
        self.ended.set()
        self.thread.join()

    def stayed(self, what, count):
        expect(set(self.seen) == {count}, f"{what}: the number of nodes was {sorted(set(self.seen))}, not {count}")


def base(cluster, namespace):
    return (RELEASE, cluster.chart, "-n", namespace, "--values", cluster.chart / "ci/kustomize.yaml")


def refused(cluster, helm, namespace, words):
    done = cluster.ran(helm, "upgrade", *base(cluster, namespace), *HPA)
    expect(done.returncode != 0 and words in done.stderr,
           f"turning the autoscaler on was not refused with {words!r}: {done.stderr}")
    return done.stderr


def hand_over(cluster, words):
    """Runs the command that the refusal says."""
    command = next(line.strip() for line in words.splitlines() if line.strip().startswith("kubectl "))
    done = cluster.ran("env", f"PATH={BIN}:{os.environ['PATH']}", "sh", "-c", command)
    expect(done.returncode == 0, f"the command of the refusal failed: {command}: {done.stderr}")


def by_helm_4(cluster):
    namespace = cluster.restricted_namespace("handover")
    cluster.helm("install", *base(cluster, namespace), *VALUES)
    cluster.rolled_out(namespace)
    said = refused(cluster, os.environ["HELM"], namespace, "--field-manager=handover")
    with Watch(cluster, namespace) as watch:
        hand_over(cluster, said)
        cluster.helm("upgrade", *base(cluster, namespace), *HPA)
    watch.stayed("turned on", NODES)
    with Watch(cluster, namespace) as watch:
        # Nothing is refused any more, and nothing changes.
        cluster.helm("upgrade", *base(cluster, namespace), *HPA)
    watch.stayed("upgraded", NODES)
    with Watch(cluster, namespace) as watch:
        cluster.helm("upgrade", *base(cluster, namespace), *VALUES, "--force-conflicts")
    watch.stayed("turned off", NODES)
    cluster.helm("uninstall", RELEASE, "-n", namespace, "--wait", "--timeout", "60s")


def of_helm_3(cluster):
    namespace = cluster.restricted_namespace("handover-3")
    done = cluster.ran(os.environ["HELM3"], "install", *base(cluster, namespace), *VALUES)
    expect(done.returncode == 0, f"Helm 3 could not install: {done.stderr}")
    cluster.rolled_out(namespace)
    refused(cluster, os.environ["HELM3"], namespace, "Helm 3 cannot hand it over")
    said = refused(cluster, os.environ["HELM"], namespace, "--field-manager=handover")
    with Watch(cluster, namespace) as watch:
        hand_over(cluster, said)
        cluster.helm("upgrade", *base(cluster, namespace), *HPA, "--server-side=true", "--force-conflicts")
    watch.stayed("turned on, of Helm 3", NODES)
    cluster.helm("uninstall", RELEASE, "-n", namespace, "--wait", "--timeout", "60s")


def by_kubectl(cluster):
    """From k8s/base to the overlay with the HPA, with what kubectl remembers changed first."""
    cluster.kubectl("apply", "-k", cluster.root / "k8s/base")
    cluster.kubectl("rollout", "status", "deployment/fanfare", "-n", "fanfare", "--timeout=60s")
    text = cluster.kubectl("-n", "fanfare", "apply", "view-last-applied", "deployment/fanfare")
    kept = "".join(line for line in text.splitlines(True) if not line.startswith("  replicas:"))
    expect(kept != text, "what kubectl remembers has no replicas")
    with Watch(cluster, "fanfare") as watch:
        cluster.kubectl("-n", "fanfare", "apply", "set-last-applied", "-f", "-", text=kept)
        cluster.kubectl("apply", "-k", cluster.root / "k8s/overlays/production")
    watch.stayed("by kubectl", 3)
    cluster.kubectl("delete", "-k", cluster.root / "k8s/overlays/production", "--wait=false")


def handover(cluster):
    begun = time.monotonic()
    for way in (by_helm_4, of_helm_3, by_kubectl):
        way(cluster)
    tell("handover", 3, "ways to turn an autoscaler on kept all nodes", begun)
