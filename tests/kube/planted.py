"""Faults that are planted into a copy of the chart and of k8s/, each of which a check must find.

In: for each the check, a file, what in it becomes what, and words of the fault that must be told; series of
replicas and reports of a load that `scaling` must not pass. Out: all were found, in these words.
"""

import functools
import shutil
import tempfile
import time
from pathlib import Path

import check_charts
import check_handover
import check_manifests
import check_scaling
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
    (check_manifests.manifests, "k8s/overlays/gateway-api/httproute.yaml", 'value: "/"', "value: chat",
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
    (check_handover.by_helm_4, f"{TEMPLATES}/_checks_scaling.tpl", "(gt $nodes 1) $mine", "(gt $nodes 1000) $mine",
     "was not refused"),
]

GOOD_SERIES = [(0.0, 3), (10.0, 6), (320.0, 5), (410.0, 4), (500.0, 3)]
GOOD_LOAD = {"received": 100000, "missing": 0, "doubled": 0, "reordered": 0, "sessions_ended": 0}
# (series of replicas, what is else in the load, words of the fault)
SERIES = [
    ([(0.0, 3)], {}, "there were never more pods"),
    ([(0.0, 3), (70.0, 6), (400.0, 5)], {}, "not more pods within"),
    ([(0.0, 3), (10.0, 6), (320.0, 5), (330.0, 6), (700.0, 5)], {}, "changes of direction"),
    ([(0.0, 3), (10.0, 6), (320.0, 4), (410.0, 3)], {}, "more than one pod fewer"),
    ([(0.0, 3), (10.0, 6), (320.0, 5), (322.0, 4)], {}, "the next pod went after"),
    (GOOD_SERIES, {"missing": 1}, "missing: 1"),
    (GOOD_SERIES, {"doubled": 1}, "doubled: 1"),
    (GOOD_SERIES, {"received": 0}, "the load was none"),
]


def planted(cluster):
    begun, missed = time.monotonic(), []
    expect(told(judged(GOOD_SERIES, {})) == "nothing", "a good series was told as a fault")
    for changes, load, words in SERIES:
        found = told(judged(changes, load))
        if words not in found:
            missed.append(f"{changes} with {load} was told as {found!r}, not as {words!r}")
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
    tell("planted", len(FAULTS) + len(SERIES), "faults planted and found", begun)


def judged(changes, load):
    seen = check_scaling.Seen(0.0, changes, depths=[(9000.0, 5000.0)])
    report = {"messages": GOOD_LOAD | load}
    return lambda: check_scaling.judge(seen, report, 5.0, "True")


def told(check):
    try:
        check()
    except Fault as fault:
        return str(fault)
    return "nothing"
