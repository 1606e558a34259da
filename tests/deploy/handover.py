"""Whether turning an autoscaler on is refused where it would send nearly everyone away.

In: the chart, and a server that has a Deployment whose number of nodes belongs to somebody, as
kept_secrets.py serves it. Out: what is taken and must be refused, and the other way round. What Kubernetes
then does is seen by tests/kube.
"""

import os

from kept_secrets import OWNED, rendered

# Redis and secrets by name: nothing else is to be refused.
SETS = ["redis.existingSecret=r", "auth.existingSecret=a", "api.existingSecret=k", "autoscaling.mode=hpa"]
HELM_4 = {"manager": "helm", "operation": "Apply"}
HELM_3 = {"manager": "helm", "operation": "Update"}
HPA = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale"}
HANDOVER = {"manager": "handover", "operation": "Apply"}
WORDS = "and the number of nodes, 12, belongs to Helm: it would fall to 1 before the autoscaler puts it back"
COMMAND = "kubectl -n fanfare apply --server-side --field-manager=handover"


def deployment(replicas, *owners):
    # The first one has everything else too.
    fields = [{**owner, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for owner in owners]
    fields.append({**HELM_4, "fieldsV1": {"f:spec": {"f:selector": {}}}})
    return {"metadata": {**OWNED, "managedFields": fields},
            "spec": {"replicas": replicas}}


# (what, nodes, who owns their number, words where Helm 4 refuses it, the same of Helm 3)
CASES = [
    ("a number that is Helm's alone", deployment(12, HELM_4), COMMAND, "Helm 3 cannot hand it over"),
    ("a number that Helm 3 has set", deployment(12, HELM_3), COMMAND, "Helm 3 cannot hand it over"),
    ("a number that was handed over", deployment(12, HELM_4, HANDOVER), None, "Helm 3 cannot hand it over"),
    ("a number that the autoscaler has set", deployment(12, HPA), None, None),
    ("one node", deployment(1, HELM_4), None, None),
    ("no release", None, None, None),
]


def check():
    faults = []
    for program, column in ((os.environ["HELM"], 2), (os.environ["HELM3"], 3)):
        for case in CASES:
            what, found, words = case[0], case[1], case[column]
            done = rendered(program, "hpa.yaml", SETS, deployment=found)
            said = " ".join(done.stderr.split())
            if words and not (WORDS in said and words in said):
                faults.append(f"{program}: {what} is taken, or refused in other words: {said}")
            if not words and done.returncode:
                faults.append(f"{program}: {what} is refused: {said}")
    return 2 * len(CASES), faults
