"""The chart through its life, for every file of helm/fanfare/ci: install, upgrade, rollback, test, uninstall.
The pod of `helm test` is taken and ends as kwok has it: no round trip is made.

In: a namespace of its own for each file, which enforces Pod Security "restricted". Out: the API server has
taken every object without a warning, all pods became ready each time, and an uninstall leaves nothing but
the Secret that is kept on purpose.
"""

import json
import time

from commands import expect, name, tell
from control_plane import Fault, until

RELEASE = "fanfare"
STEP = "fanfare.test/step"
STEP_TWO = ("--set-string", r"podAnnotations.fanfare\.test/step=two")
# How long a new pod must be ready first is no matter here.
FAST = ("--set", "minReadySeconds=0")
SCALED_S = 60


def charts(cluster):
    begun = time.monotonic()
    files = sorted((cluster.chart / "ci").glob("*.yaml"))
    expect(len(files) >= 9, f"helm/fanfare/ci has {len(files)} files; there must be at least 9")
    seen = 0
    for file in files:
        seen += life(cluster, file)
    tell("charts", seen, f"objects of {len(files)} files installed, upgraded, rolled back, uninstalled", begun)


def life(cluster, file):
    begun = time.monotonic()
    namespace = cluster.restricted_namespace(f"chart-{file.stem}")
    # ci/node-port.yaml takes an account that is there.
    cluster.kubectl("create", "serviceaccount", "gateways", "-n", namespace)
    here = ("-n", namespace)
    values = (*here, "--values", file, *FAST)
    cluster.helm("install", RELEASE, cluster.chart, *values)
    settled(cluster, namespace)
    objects = made(cluster, namespace)
    expect(steps(cluster, namespace) == {None}, "a new release has the step of an upgrade")

    cluster.helm("upgrade", RELEASE, cluster.chart, *values, *STEP_TWO)
    settled(cluster, namespace)
    expect(steps(cluster, namespace) == {"two"}, f"{file.name}: after the upgrade there are pods of before")

    cluster.helm("rollback", RELEASE, "1", *here)
    settled(cluster, namespace)
    expect(steps(cluster, namespace) == {None}, f"{file.name}: after the rollback there are pods of the upgrade")

    tested = cluster.helm("get", "hooks", RELEASE, *here).strip()
    if tested:
        cluster.helm("test", RELEASE, *here, "--timeout", "60s")
    cluster.helm("uninstall", RELEASE, *here, "--wait", "--timeout", "60s")
    left = what_is_left(cluster, objects)
    print(f"  {file.stem}: {len(objects)} objects, {'test pod taken' if tested else 'no test pod'}, "
          f"left: {', '.join(left) or 'nothing'}, {time.monotonic() - begun:.1f} s", flush=True)
    return len(objects)


def settled(cluster, namespace):
    """All pods are ready, and there are as many as whatever scales them wants at least."""
    for scaler in cluster.objects("get", "hpa", "-n", namespace):
        wanted, target = scaler["spec"]["minReplicas"], scaler["spec"]["scaleTargetRef"]["name"]
        until(SCALED_S, f"{target} in {namespace} has {wanted} replicas",
              lambda: replicas(cluster, namespace, target) >= wanted)
    cluster.rolled_out(namespace)


def replicas(cluster, namespace, deployment):
    return cluster.objects("get", "deployment", deployment, "-n", namespace)[0]["spec"]["replicas"]


def made(cluster, namespace):
    """The objects of the release, each as the API server has it."""
    manifest = cluster.helm("get", "manifest", RELEASE, "-n", namespace)
    return cluster.objects("get", "-n", namespace, "-f", "-", text=manifest)


def steps(cluster, namespace):
    pods = cluster.objects("get", "pods", "-n", namespace, "-l", "app.kubernetes.io/component=gateway")
    live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    expect(live, f"there is no pod in {namespace}")
    return {pod["metadata"].get("annotations", {}).get(STEP) for pod in live}


def what_is_left(cluster, objects):
    """Names of objects that an uninstall left, which must be those that are to be kept."""
    asked = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    left = cluster.objects("get", "--ignore-not-found", "-f", "-", text=asked)
    for found in left:
        kept = found["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        expect(kept, f"the uninstall left {name(found)}")
    return [name(found) for found in left]


def kept_secrets(cluster):
    """The chart without values makes secrets once: an upgrade and a second install take those."""
    begun = time.monotonic()
    namespace = cluster.restricted_namespace("secrets")
    install = ("upgrade", "--install", RELEASE, cluster.chart, "-n", namespace, *FAST)
    cluster.helm(*install)
    first = secret(cluster, namespace)
    cluster.helm(*install, *STEP_TWO)
    expect(secret(cluster, namespace) == first, "an upgrade made other secrets")
    cluster.helm("uninstall", RELEASE, "-n", namespace, "--wait", "--timeout", "60s")
    expect(secret(cluster, namespace) == first, "an uninstall changed the secrets")
    cluster.helm(*install)
    expect(secret(cluster, namespace) == first, "a second install made other secrets")
    cluster.helm("uninstall", RELEASE, "-n", namespace, "--wait", "--timeout", "60s")
    tell("secrets", len(first), "made once, the same after upgrade, uninstall and a second install", begun)


def secret(cluster, namespace):
    return cluster.objects("get", "secret", RELEASE, "-n", namespace)[0]["data"]


def failed_upgrade(cluster):
    """An upgrade whose pods never become ready takes no pod away, and goes back when it is told to."""
    begun = time.monotonic()
    namespace = cluster.restricted_namespace("failing")
    values = ("-n", namespace, "--values", cluster.chart / "ci/kustomize.yaml", *FAST)
    cluster.helm("install", RELEASE, cluster.chart, *values)
    cluster.rolled_out(namespace)
    never = ("--set-string", r"podAnnotations.fanfare\.test/ready-after=1h", "--wait", "--timeout", "8s")
    for more in ((), ("--rollback-on-failure",)):
        try:
            cluster.helm("upgrade", RELEASE, cluster.chart, *values, *never, *more)
        except Fault as fault:
            expect("upgrade" in str(fault), str(fault))
        else:
            expect(False, "an upgrade whose pods are never ready was told as done")
        ready = cluster.objects("get", "deployment", RELEASE, "-n", namespace)[0]["status"].get("readyReplicas", 0)
        expect(ready >= 3, f"a failed upgrade left {ready} of 3 pods ready")
    cluster.rolled_out(namespace)
    history = json.loads(cluster.helm("history", RELEASE, "-n", namespace, "-o", "json"))
    expect(history[-1]["status"] == "deployed", f"after the rollback the release is {history[-1]['status']}")
    tell("failed upgrade", ready, "pods stayed ready through two of them, and the second went back by itself", begun)


def disruptions(cluster):
    """The disruption budget lets one pod go, and the next only when the first is replaced."""
    begun = time.monotonic()
    namespace = cluster.restricted_namespace("disruptions")
    values = ("-n", namespace, "--values", cluster.chart / "ci/kustomize.yaml", *FAST)
    cluster.helm("install", RELEASE, cluster.chart, *values,
                 "--set-string", r"podAnnotations.fanfare\.test/ready-after=5s")
    cluster.rolled_out(namespace)
    pods = [pod["metadata"]["name"] for pod in cluster.objects("get", "pods", "-n", namespace)]
    expect(len(pods) == 3, f"there are {len(pods)} pods, and must be 3")
    until(SCALED_S, "the budget knows its pods", lambda: budget(cluster, namespace)["disruptionsAllowed"] >= 1)
    evictions = [evict(cluster, namespace, pods[0]), evict(cluster, namespace, pods[1])]
    cluster.rolled_out(namespace)
    until(SCALED_S, "the budget is whole again", lambda: budget(cluster, namespace)["disruptionsAllowed"] >= 1)
    evictions.append(evict(cluster, namespace, pods[1]))
    expect(evictions == [201, 429, 201], f"evictions were answered with {evictions}, not 201, 429, 201")
    tell("disruptions", len(evictions), "evictions: one taken, the next refused until the first was replaced", begun)


def budget(cluster, namespace):
    return cluster.objects("get", "pdb", RELEASE, "-n", namespace)[0]["status"]


def evict(cluster, namespace, pod):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    try:
        with cluster.plane.open("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body) as answer:
            return answer.status
    except OSError as refusal:
        return refusal.code
