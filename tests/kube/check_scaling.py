"""The chart's own HPA over real nodes, under a step of real load.

In: helm/fanfare/ci/hpa.yaml, a redis-server, one `fanfare serve` a pod with a limit of processor time,
Prometheus and prometheus-adapter (custom_metrics.py), a feeder that keeps 3,000 entries a pod of the beginning
in the queue, `fanfare bench queue` which looks at what comes out. Out:
more pods within 60 s, one change of direction, one pod fewer at a time and slower than a node leaves, no
message lost, doubled or out of order for the load and for sessions that stay all the time, every node ended
in order.

SCALING_DOWN_S in the environment takes the place of the chart's own window on the way down, and a third of
it that of the period, to see the rest in four minutes instead of fifteen. It must be longer than the load,
or pods go while it lasts. SCALING_METRIC is pressure (the default) or depth.
"""

import dataclasses
import json
import os
import subprocess
import time

from audience import SESSIONS, Audience
from commands import expect, tell
from control_plane import free_ports, until
from custom_metrics import CustomMetrics
from feeder import Feeder
from kwok_stages import PROCESS
from metrics_api import Figures, MetricsApi
from node_processes import Kubelet

RELEASE = "fanfare"
FEWEST = 3
# What this machine has room for; 3,000 entries for each of three pods ask for nine, too.
MOST = 9
QUEUED = 3000 * FEWEST
# So many are asked for: what nodes have taken and not yet published is not seen in their depth.
WANTED = 2 * QUEUED
CAPACITY = 100_000
# Of each pod, held by its control group. With a core each three nodes move what one Redis can: they would be
# nearly idle, and there would be no reason for more.
LIMITS = {"cpu": "100m", "memory": "512Mi"}
ON_THEIR_WAY = 500
LOAD_S = 60
GROWN_S = 60
READY_S = 120
SETTLED_S = 10
SECRET = "not-a-secret-not-a-secret-not-a-secret"
KEY = "not-a-secret-key"


@dataclasses.dataclass
class Seen:
    """Replicas as the Deployment had them: [(seconds since the load, replicas)], the changes alone."""

    begun: float
    changes: list
    depths: list = dataclasses.field(default_factory=list)
    # Sessions of each node, as they were last while there were most nodes.
    sessions: list = dataclasses.field(default_factory=list)

    def note(self, replicas, figures, is_loaded):
        depth, pressure = (figures.sum(f"fanfare_queue_{name}") for name in ("depth", "pressure"))
        if is_loaded:
            self.depths.append((depth, pressure))
        if replicas == max(count for _, count in self.changes):
            self.sessions = sorted(sums["fanfare_sessions"] for sums in figures.last.values())
        if self.changes[-1][1] != replicas:
            at = round(time.monotonic() - self.begun, 1)
            self.changes.append((at, replicas))
            print(f"  {at:6.1f} s: {replicas} pods, depth {depth:.0f}, pressure {pressure:.0f}", flush=True)

    def turns(self):
        ways = [after > before for (_, before), (_, after) in zip(self.changes, self.changes[1:])]
        return sum(one != next for one, next in zip(ways, ways[1:]))

    def downs(self):
        return [(at, before - after) for (_, before), (at, after) in zip(self.changes, self.changes[1:])
                if after < before]


def scaling(cluster):
    begun = time.monotonic()
    program = os.path.abspath(os.environ["FANFARE"])
    port, = free_ports(1)
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                              "--dir", cluster.plane.folder], stdout=subprocess.DEVNULL)
    kubelet = Kubelet(cluster.plane, program)
    figures = Figures(kubelet)
    # Processor time and memory, and the figures of the nodes.
    metrics, custom = MetricsApi(cluster.plane, figures), CustomMetrics(cluster.plane, kubelet, cluster.root)
    try:
        metrics.register(cluster)
        custom.register(cluster)
        namespace = installed(cluster, f"redis://127.0.0.1:{port}")
        until(READY_S, f"{FEWEST} nodes are ready", lambda: ready(kubelet) == FEWEST)
        until(READY_S, "the HPA has its figures", lambda: condition(cluster, namespace, "ScalingActive") == "True")
        audience = Audience(cluster.plane, kubelet, program, SECRET, KEY)
        try:
            until(READY_S, "the audience has connected", lambda: figures.sum("fanfare_sessions") == SESSIONS)
            seen, report = under_load(cluster, namespace, kubelet, figures, program)
            said = audience.judge()
        finally:
            audience.stop()
        print(f"  audience: {SESSIONS} sessions had all {said} messages once and in order", flush=True)
        spread(seen)
        tell_load(seen, report)
        until(READY_S, "those that leave have left", lambda: all(node in kubelet.serving() or node.leave_s
                                                                 for node in kubelet.nodes.values()))
        judge(seen, report, slowest(kubelet), condition(cluster, namespace, "ScalingActive"))
        reasons(cluster, namespace)
        cluster.helm("uninstall", RELEASE, "-n", namespace, "--wait", "--timeout", "180s")
        until(READY_S, "all nodes have ended", lambda: not running(kubelet))
        ended(kubelet)
    finally:
        kubelet.stop()
        metrics.stop()
        custom.stop()
        redis.terminate()
        redis.wait()
    tell("scaling", len(kubelet.nodes), "nodes run, each ended with 0", begun)


def installed(cluster, redis_url):
    namespace = cluster.restricted_namespace("scaling")
    for name, key, value in (("redis", "url", redis_url), ("auth", "hmac-secret", SECRET), ("api", "api-keys", KEY)):
        cluster.kubectl("create", "secret", "generic", f"fanfare-{name}", "-n", namespace,
                        f"--from-literal={key}={value}")
    values = {
        "autoscaling": {"minReplicas": FEWEST, "maxReplicas": MOST,
                        "queueMetric": os.environ.get("SCALING_METRIC", "pressure")},
        "podAnnotations": {PROCESS: "yes"},
        "resources": {"requests": LIMITS, "limits": LIMITS},
        "config": {"queue": {"capacity": CAPACITY}},
        "minReadySeconds": 0,
    }
    if "SCALING_DOWN_S" in os.environ:
        values["autoscaling"]["behavior"] = quick(int(os.environ["SCALING_DOWN_S"]))
    file = cluster.plane.folder / "scaling.json"
    file.write_text(json.dumps(values))
    cluster.helm("install", RELEASE, cluster.chart, "-n", namespace,
                 "--values", cluster.chart / "ci/hpa.yaml", "--values", file)
    return namespace


def quick(seconds):
    """The chart's way up, and another way down."""
    up = [{"type": "Percent", "value": 100, "periodSeconds": 15}, {"type": "Pods", "value": 4, "periodSeconds": 15}]
    return {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": up},
            "scaleDown": {"stabilizationWindowSeconds": seconds, "selectPolicy": "Max",
                          "policies": [{"type": "Pods", "value": 1, "periodSeconds": seconds // 3}]}}


def under_load(cluster, namespace, kubelet, figures, program):
    """Puts the load on, and looks until as few pods as before have been there for a while."""
    first = kubelet.serving()[0]
    environment = {"PATH": os.environ["PATH"], "TOKEN_SECRET": SECRET, "FANFARE_API_KEY": KEY}
    command = [program, "bench", "queue", "--sessions", "600", "--ahead", str(ON_THEIR_WAY), "--list", "100",
               "--feeders", "2", "--seconds", str(LOAD_S), "--patience", "30", "--format", "json",
               "--secret-env", "TOKEN_SECRET",
               "--url", f"ws://127.0.0.1:{first.ports['http']}/v1/connect",
               "--api-url", f"http://127.0.0.1:{first.ports['api']}"]
    seen = Seen(time.monotonic(), [(0.0, FEWEST)])
    log = open(cluster.plane.folder / "bench.log", "w+")
    load = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    feeder = Feeder([f"http://127.0.0.1:{node.ports['api']}" for node in kubelet.serving()], KEY, WANTED)
    down, quiet = down_of(cluster, namespace), 0.0
    # The window, then one period for each pod, and as much again for a machine that is busy.
    end = time.monotonic() + LOAD_S + 2 * (down[0] + down[1] * (MOST - FEWEST)) + READY_S
    feeder.start()
    while quiet < SETTLED_S:
        if load.poll() is not None:
            feeder.stop()
        replicas = cluster.plane.call("GET", scale_path(namespace))["spec"]["replicas"]
        seen.note(replicas, figures, load.poll() is None)
        at_rest = load.poll() is not None and replicas == FEWEST and len(kubelet.serving()) == FEWEST
        quiet = quiet + 1 if at_rest else 0
        expect(not kubelet.faults, f"nodes did not do well: {kubelet.faults}")
        expect(time.monotonic() < end, f"not back at {FEWEST} pods: {seen.changes}")
        time.sleep(1)
    expect(not feeder.fault, f"the feeder: {feeder.fault!r}")
    print(f"  fed: {feeder.sent} entries for users who are not there", flush=True)
    said = load.stdout.read()
    log.seek(0)
    expect(said.strip(), f"the load failed: {log.read()[-1000:]}")
    return seen, json.loads(said)


def scale_path(namespace):
    return f"/apis/apps/v1/namespaces/{namespace}/deployments/{RELEASE}/scale"


def down_of(cluster, namespace):
    """Window and period of the HPA on the way down."""
    rules = cluster.objects("get", "hpa", RELEASE, "-n", namespace)[0]["spec"]["behavior"]["scaleDown"]
    return rules["stabilizationWindowSeconds"], rules["policies"][0]["periodSeconds"]


def tell_load(seen, report):
    depths, pressures = zip(*seen.depths)
    print(f"  load: {report['messages']['received']} messages, {report['figures']['queue_entries_per_s']:.0f} a "
          f"second; depth {sum(depths) / len(depths):.0f} in the mean, {max(depths):.0f} at most; pressure "
          f"{sum(pressures) / len(pressures):.0f}, {max(pressures):.0f}", flush=True)


def slowest(kubelet):
    """How long a node took at most to leave."""
    left = [node.leave_s for node in kubelet.nodes.values() if node.leave_s is not None]
    longest = max(left, default=0.0)
    print(f"  a node took at most {longest:.2f} s to leave", flush=True)
    return longest


def judge(seen, report, leave_s, active):
    messages, highest = report["messages"], max(depth for depth, _ in seen.depths)
    expect(messages["received"] > QUEUED, f"the load was none: {messages}")
    for fault in ("missing", "doubled", "reordered", "sessions_ended"):
        expect(messages[fault] == 0, f"{fault}: {messages[fault]}")
    expect(highest >= QUEUED / 2, f"at most {highest:.0f} were queued at once")
    expect(len(seen.changes) > 1, "there were never more pods")
    grown = seen.changes[1]
    expect(grown[1] > FEWEST and grown[0] <= GROWN_S, f"not more pods within {GROWN_S} s: {seen.changes}")
    expect(seen.turns() == 1, f"{seen.turns()} changes of direction, not one: {seen.changes}")
    downs = seen.downs()
    expect(all(count == 1 for _, count in downs), f"more than one pod fewer at once: {seen.changes}")
    for (before, _), (after, _) in zip(downs, downs[1:]):
        expect(after - before > leave_s, f"the next pod went after {after - before:.1f} s")
    expect(active == "True", "the HPA lost its figures")


def spread(seen):
    """Rebalancing has given the nodes that came their part. It begins a minute after the last change of nodes,
    where a node has a fifth more than its share and at least 10 more."""
    mean = sum(seen.sessions) / len(seen.sessions)
    print(f"  sessions of each node before the first went: {seen.sessions}", flush=True)
    most = mean + max(0.2 * mean, 10)
    expect(seen.sessions[-1] <= most, f"a node has {seen.sessions[-1]} sessions, {most:.0f} are within tolerance")


def reasons(cluster, namespace):
    """Why the HPA did what it did, in its own words: the queue must have been a reason."""
    events = cluster.objects("get", "events", "-n", namespace, "--field-selector", "reason=SuccessfulRescale")
    said = [event["message"] for event in events]
    for words in said:
        print(f"  HPA: {words}", flush=True)
    expect(any("fanfare_queue_" in words for words in said), "no reason of the HPA was the queue")


def ready(kubelet):
    return sum(node.ready for node in kubelet.serving())


def running(kubelet):
    return [node for node in kubelet.nodes.values() if node.code is None]


def condition(cluster, namespace, kind):
    conditions = cluster.objects("get", "hpa", RELEASE, "-n", namespace)[0]["status"].get("conditions", [])
    return next((one["status"] for one in conditions if one["type"] == kind), None)


def ended(kubelet):
    codes = {node.name: node.code for node in kubelet.nodes.values()}
    expect(not kubelet.faults, f"nodes did not do well: {kubelet.faults}")
    expect(set(codes.values()) == {0}, f"nodes ended otherwise than with 0: {codes}")
