"""Faults that are planted into a copy of the chart and of k8s/, each of which a check must find.

In: for each the check, a file, what in it becomes what, and words of the fault that must be told. Out: all
were found, in these words.
"""

import functools
import shutil
import tempfile
import time
from pathlib import Path

import check_charts
import check_manifests
from commands import Cluster, expect, tell
from control_plane import Fault

BASE = "k8s/base"
TEMPLATES = "helm/fanfare/templates"


def life_of(name):
    def check(cluster):
        check_charts.life(cluster, cluster.chart / f"ci/{name}.yaml")

    return check


# (check, file, what is there, what is planted, words of the fault)
FAULTS = [
    (check_manifests.manifests, f"{BASE}/deployment.yaml", "drop: [ALL]", "drop: []", "would violate PodSecurity"),
    (check_manifests.manifests, "k8s/overlays/production/hpa.yaml", "minReplicas: 3", "minReplicas: 40",
     "must be greater than or equal to `minReplicas`"),
    (check_manifests.manifests, f"{BASE}/poddisruptionbudget.yaml", "maxUnavailable: 1",
     "maxUnavailable: 1\n  minAvailable: 1", "cannot be both set"),
    (check_manifests.manifests, f"{BASE}/deployment.yaml", "maxSurge: 1", "maxSurge: 0", "may not be 0"),
    (check_manifests.manifests, "k8s/overlays/gateway-api/httproute.yaml", "value: /", "value: chat",
     "must be an absolute path"),
    (check_manifests.manifests, "k8s/overlays/keda/keda.yaml", "pollingInterval: 15", "pollingInterval: soon",
     "pollingInterval"),
    (life_of("kustomize"), f"{TEMPLATES}/_names.tpl", "allowPrivilegeEscalation: false",
     "allowPrivilegeEscalation: true", "was warned"),
    (life_of("hpa"), f"{TEMPLATES}/deployment.yaml", '{{- if not (include "fanfare.autoscaled" .) }}',
     "{{- if true }}", "conflict"),
    (check_charts.kept_secrets, f"{TEMPLATES}/secret.yaml", 'get $kept "hmac-secret" | default (randAlphaNum 48',
     "(randAlphaNum 48", "an upgrade made other secrets"),
    (check_charts.failed_upgrade, f"{TEMPLATES}/deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 2",
     "a failed upgrade left"),
    (check_charts.disruptions, f"{TEMPLATES}/poddisruptionbudget.yaml", "maxUnavailable: 1\n", "maxUnavailable: 2\n",
     "evictions were answered"),
]


def planted(cluster):
    begun, missed = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for number, (check, file, old, new, words) in enumerate(FAULTS):
            root = Path(folder) / str(number)
            for part in ("helm", "k8s"):
                shutil.copytree(cluster.root / part, root / part)
            text = (root / file).read_text()
            expect(old in text, f"{file} has no {old!r} any more")
            (root / file).write_text(text.replace(old, new))
            found = told(functools.partial(check, Cluster(cluster.plane, root)))
            if words not in found:
                missed.append(f"{new!r} planted in {file} was told as {found!r}, not as {words!r}")
    expect(not missed, "\n  ".join(missed))
    tell("planted", len(FAULTS), "faults planted and found", begun)


def told(check):
    try:
        check()
    except Fault as fault:
        return str(fault)
    return "nothing"
