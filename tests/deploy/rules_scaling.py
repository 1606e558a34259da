"""Rules about the numbers by which nodes are added and removed.

In: the objects of one rendering. Out: what is wrong, each in words.
"""

import re

from objects import ROOT, autoscalers, gateway, name, of_kind, settings
from rules_running import CONNECTIONS

# From here on priority low is refused, and so far above its target an autoscaler does nothing.
LOW_REFUSED, TOLERANCE = 0.7, 1.1
# Of the sessions that a node takes.
SESSIONS_LEAST, SESSIONS_MOST = 0.1, 1.0


def size(objects):
    env = gateway(objects)[1]["env"]
    return next(variable["value"] for variable in env if variable["name"] == "FANFARE_SIZE")


def capacity(objects):
    """What the queue of the nodes holds: their configuration, or the table of presets."""
    given = settings(objects).get("queue", {}).get("capacity")
    if given is not None:
        return given
    page = (ROOT / "docs/configuration.md").read_text()
    row = re.search(r"^\| `queue\.capacity` \|(.*)\|$", page, re.MULTILINE)[1].split("|")
    return int(row[list(CONNECTIONS).index(size(objects))])


def targets(found):
    """(metric of nodes, its target for each node, most nodes) of an autoscaler."""
    spec = found["spec"]
    for metric in spec.get("metrics", []):
        if metric["type"] == "Pods":
            yield metric["pods"]["metric"]["name"], int(metric["pods"]["target"]["averageValue"]), spec["maxReplicas"]
    for trigger in spec.get("triggers", []):
        asked, most = trigger["metadata"], spec["maxReplicaCount"]
        if trigger["type"] == "prometheus":
            yield re.search(r"fanfare_\w+", asked["query"])[0], int(asked["threshold"]), most
        elif trigger["type"] == "metrics-api":
            yield f"fanfare_queue_{asked['valueLocation']}", int(asked["targetValue"]), most


def numbers(objects):
    """The queue can ask for the most nodes, and the target of sessions is one that nodes can have."""
    connections = settings(objects)["server"].get("connections_max", CONNECTIONS[size(objects)])
    for found in autoscalers(objects):
        for metric, target, most in targets(found):
            if metric in ("fanfare_queue_pressure", "fanfare_queue_depth"):
                asks = capacity(objects) * LOW_REFUSED / TOLERANCE / target
                if asks < most:
                    yield (f"{name(found)}: the queue holds {capacity(objects)} entries, which ask for {asks:.1f} "
                           f"nodes of {target} each, and there may be {most}")
            elif metric == "fanfare_sessions":
                if not max(1, SESSIONS_LEAST * connections) <= target <= SESSIONS_MOST * connections:
                    yield f"{name(found)}: {target} sessions for each node, which takes {connections}"
            else:
                yield f"{name(found)}: {metric} is no metric by which nodes are added"


def queries(objects):
    """KEDA asks for the sum over the nodes of this release, under the job that Prometheus has them by."""
    jobs = {rule["replacement"] for found in of_kind(objects, "ServiceMonitor")
            for endpoint in found["spec"]["endpoints"] for rule in endpoint["relabelings"]
            if rule["targetLabel"] == "job"}
    for found in of_kind(objects, "ScaledObject"):
        space = found["metadata"]["namespace"]
        for trigger in found["spec"]["triggers"]:
            if trigger["type"] != "prometheus":
                continue
            query = trigger["metadata"]["query"]
            told = re.fullmatch(r'sum\(fanfare_\w+\{namespace="([^"]+)",job="([^"]*fanfare[^"]*)"\}\)', query)
            if not told or told[1] != space or jobs - {told[2]}:
                yield f"{name(found)}: {query} is no sum over the nodes in {space} of the job {sorted(jobs)}"
            if trigger["metricType"] != "AverageValue":
                yield f"{name(found)}: its metric is {trigger['metricType']}, and the sum must be dealt to nodes"
