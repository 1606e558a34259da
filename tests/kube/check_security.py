"""Pod Security "restricted", and what the API server refuses.

In: a namespace that enforces it. Out: each bad object is refused by the right rule, a good pod is taken.
"""

import copy
import json
import time

from commands import expect, tell

GOOD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "good"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "fanfare", "image": "fanfare:test",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }],
    },
}


def changed(change):
    pod = copy.deepcopy(GOOD)
    change(pod["spec"], pod["spec"]["containers"][0]["securityContext"])
    return pod


# {what the rule says: the pod that breaks it}
BAD = {
    "privileged": changed(lambda spec, own: own.update(privileged=True, allowPrivilegeEscalation=True)),
    "allowPrivilegeEscalation != false": changed(lambda spec, own: own.pop("allowPrivilegeEscalation")),
    "unrestricted capabilities": changed(lambda spec, own: own.pop("capabilities")),
    "runAsNonRoot != true": changed(lambda spec, own: spec["securityContext"].pop("runAsNonRoot")),
    "runAsUser=0": changed(lambda spec, own: spec["securityContext"].update(runAsUser=0)),
    "seccompProfile": changed(lambda spec, own: spec["securityContext"].pop("seccompProfile")),
    "host namespaces": changed(lambda spec, own: spec.update(hostNetwork=True)),
    "restricted volume types": changed(
        lambda spec, own: spec.update(volumes=[{"name": "host", "hostPath": {"path": "/"}}])),
}

BUDGET = {
    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "both"},
    "spec": {"minAvailable": 1, "maxUnavailable": 1, "selector": {"matchLabels": {"app": "fanfare"}}},
}


def pods(cluster):
    begun = time.monotonic()
    namespace = cluster.restricted_namespace("security")
    for rule, pod in BAD.items():
        said = cluster.refused(in_namespace(pod, namespace), "violates PodSecurity \"restricted")
        expect(rule in said, f"refused by another rule than {rule!r}: {said}")
    cluster.apply(in_namespace(GOOD, namespace), "--dry-run=server")
    tell("security", len(BAD), "bad pods refused by Pod Security, the good one taken", begun)


def budgets(cluster):
    begun = time.monotonic()
    namespace = cluster.restricted_namespace("budgets")
    cluster.refused(in_namespace(BUDGET, namespace), "cannot be both set")
    taken = 0
    for field in ("minAvailable", "maxUnavailable"):
        budget = copy.deepcopy(BUDGET)
        del budget["spec"][field]
        cluster.apply(in_namespace(budget, namespace), "--dry-run=server")
        taken += 1
    tell("budgets", taken, "with one field taken, the one with both refused", begun)


def in_namespace(found, namespace):
    copied = copy.deepcopy(found)
    copied["metadata"]["namespace"] = namespace
    return json.dumps(copied)
