"""The documented formula of the HPA, applied to the chart's behavior and a series of load.

In: a HorizontalPodAutoscaler or ScaledObject as rendered, and for each second how much there is of each
metric in all pods together. Out: how many pods there are at each second. Pure; a pod counts at once. What
the formula is: the page "Horizontal Pod Autoscaling" of Kubernetes.
"""

import math

SYNC_S = 15
TOLERANCE = 0.1


class Hpa:
    def __init__(self, found):
        spec = found["spec"]
        if found["kind"] == "ScaledObject":
            self.least, self.most = spec["minReplicaCount"], spec["maxReplicaCount"]
            self.behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            asked = [t["metadata"] for t in spec["triggers"] if t["type"] == "prometheus"]
            self.targets = {one["query"][4:].split("{")[0]: float(one["threshold"]) for one in asked}
        else:
            self.least, self.most = spec["minReplicas"], spec["maxReplicas"]
            self.behavior = spec["behavior"]
            asked = [m["pods"] for m in spec["metrics"] if m["type"] == "Pods"]
            self.targets = {one["metric"]["name"]: float(one["target"]["averageValue"]) for one in asked}
        self.pods = self.least
        self.recommended = []
        self.changes = []

    def proposal(self, totals):
        """By the metric that asks for the most."""
        wanted = []
        for metric, target in self.targets.items():
            ratio = totals[metric] / self.pods / target
            wanted.append(self.pods if abs(ratio - 1) <= TOLERANCE else math.ceil(self.pods * ratio))
        return min(self.most, max(self.least, *wanted))

    def bound(self, second, rules, sign):
        """How far the policies let the number go from here."""
        reach = []
        for policy in rules["policies"]:
            recent = sum(by for at, by in self.changes if at > second - policy["periodSeconds"] and by * sign > 0)
            begun = self.pods - recent
            step = policy["value"] if policy["type"] == "Pods" else math.ceil(begun * policy["value"] / 100)
            reach.append(begun + sign * step)
        return max(reach) if sign > 0 else min(reach)

    def look(self, second, totals):
        proposal = self.proposal(totals)
        self.recommended.append((second, proposal))
        rules = self.behavior["scaleUp" if proposal > self.pods else "scaleDown"]
        window = rules["stabilizationWindowSeconds"]
        recent = [number for at, number in self.recommended if at >= second - window]
        if proposal > self.pods:
            target = min(*recent, self.bound(second, rules, 1)) if window else min(proposal, self.bound(second, rules, 1))
            target = max(target, self.pods)
        else:
            target = min(self.pods, max(*recent, self.bound(second, rules, -1), proposal))
        if target != self.pods:
            self.changes.append((second, target - self.pods))
            self.pods = target


def step_of_load(hpa, seconds=1800):
    """Pods at each second, under a step: for five minutes more comes than the first nodes work off.

    A node works off 100 entries a second. 3,000 for each of the first nodes wait after some 10 s.
    """
    backlog, sessions = 0, 400 * hpa.least
    series = []
    for second in range(seconds):
        comes = 100 * hpa.least * (1.9 if 60 <= second < 360 else 0.3)
        if second == 60:
            backlog += 3000 * hpa.least
        backlog = max(0, backlog + comes - 100 * hpa.pods)
        if second % SYNC_S == 0:
            hpa.look(second, {"fanfare_queue_pressure": backlog, "fanfare_queue_depth": backlog,
                              "fanfare_sessions": sessions})
        series.append(hpa.pods)
    return series


def faults(found, stop_s):
    """More nodes within a minute, one change of direction, down slower than the stop, and back."""
    hpa = Hpa(found)
    series = step_of_load(hpa)
    least = hpa.least
    if series[59] != least or series[120] <= least:
        yield f"{series[59]} nodes before the step and {series[120]} a minute after it"
    signs = [1 if by > 0 else -1 for _, by in hpa.changes]
    turns = sum(one != two for one, two in zip(signs, signs[1:]))
    if turns > 1:
        yield f"it changes its direction {turns} times: {hpa.changes}"
    downs = [(at, by) for at, by in hpa.changes if by < 0]
    for (at, by), (later, _) in zip(downs, downs[1:]):
        if by < -1 or later - at < min(1800, stop_s):
            yield f"{-by} nodes go at {at} s, and the next at {later} s, and a stop takes {stop_s} s"
    if not downs:
        yield f"nodes are never taken away: {hpa.changes}"
