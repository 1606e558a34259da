"""Plays the chart and k8s/ as pods by `podman play kube`, and goes the way of `helm test` through them.

    pods.py IMAGE

In: the image that check-image builds, chart and k8s/ of DEPLOY_ROOT. podman has no Services, so HAProxy
takes their names and ports and leads to the pods that their selectors hit. A Redis with the password of the
Secret has the name `redis`. What podman cannot play is named. Out: a line for each folder; 1 where a node
does not get ready, is not as confined as it says, does not join the others or end with 0, where the test
pod fails, or where one with a wrong key does not.
"""

import base64
import contextlib
import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid

import yaml

import check_kustomize
from contained import REDIS_IMAGE, podman
from objects import CHART, ROOT, gateway, hits, kustomized, of_kind, parsed, template
from rig import Failed, http, until

NETWORK = "fanfare-pods"
PROXY_IMAGE = "docker.io/library/haproxy:3.0-alpine"
PLAYED = ("ConfigMap", "Secret", "Deployment")
# podman has nothing like them; Services are played by HAProxy.
UNPLAYED = {"Namespace", "ServiceAccount", "Service", "NetworkPolicy", "PodDisruptionBudget"}
# What a wrong key must be found by: the variable, and the words of `fanfare roundtrip`.
WRONG_KEYS = {
    "FANFARE_API_KEY": "this is no valid API key",
    "FANFARE_AUTH__HMAC_SECRET": "the token's signature is not valid",
}
UNITS = {"Mi": 2**20, "Gi": 2**30}


def secret(name, values):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "stringData": values}


def groups():
    """(what it is, its objects, its test pod)."""
    def test_pod(values, *more):
        rendered = parsed(template(values, *more, "--set", "tests.enabled=true"))
        return of_kind(rendered, "Pod")[0]

    default, like_base = CHART / "ci/default.yaml", CHART / "ci/kustomize.yaml"
    charts = [found for found in parsed(template(default)) if found["kind"] != "Pod"]
    yield "helm/fanfare, ci/default.yaml", charts, test_pod(default)
    # As docs/kubernetes.md has them made before: one key for the nodes, which the test pod sends.
    made = [secret(name, {key: uuid.uuid4().hex}) for name, key in sorted(check_kustomize.SECRETS)]
    for found in made:
        if "api-keys" in found["stringData"]:
            found["stringData"]["api-key"] = found["stringData"]["api-keys"]
    yield "k8s/base", kustomized(ROOT / "k8s/base") + made, test_pod(like_base)
    dev = [part for text in check_kustomize.DEV for part in ("--set", text)]
    yield "k8s/overlays/dev", kustomized(ROOT / "k8s/overlays/dev"), test_pod(like_base, *dev)


def play(objects):
    """As a cluster would be given them. Secrets of a file are not read again by Debian's podman 4.3: it wants
    what `podman secret create` keeps, a map of keys to base64.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "objects"
        for found in of_kind(objects, "Secret"):
            file.write_text(json.dumps({key: base64.b64encode(value).decode() for key, value in values_of(found).items()}))
            podman("secret", "create", found["metadata"]["name"], str(file))
        others = [found for found in objects if found["kind"] != "Secret"]
        if others:
            file.write_text(yaml.safe_dump_all(others))
            podman("play", "kube", "--network", NETWORK, str(file), patience_s=120)


def values_of(secret):
    """What a Secret keeps, as bytes."""
    values = {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}
    return values | {key: value.encode() for key, value in secret.get("stringData", {}).items()}


def clear():
    """Ends what an earlier run has left, or this one. Secrets and unused volumes are of these checks alone,
    because their storage is.
    """
    on_it = ("--filter", f"network={NETWORK}")
    # The pods first: with them go their containers.
    for kind, listed in (("pod", ("pod", "ps", *on_it, "--format", "{{.Name}}")), ("container", ("ps", "--all", *on_it, "--format", "{{.Names}}"))):
        names = podman(*listed).split()
        if names:
            podman(kind, "rm", "--force", "--time", "0", *names)
    for name in podman("secret", "ls", "--format", "{{.Name}}").split():
        podman("secret", "rm", name)
    podman("volume", "prune", "--force")
    podman("network", "rm", "--force", NETWORK)


@contextlib.contextmanager
def network():
    clear()
    podman("network", "create", NETWORK)
    try:
        yield
    finally:
        clear()


def decoded(objects, name, key):
    """What a Secret has under a key."""
    for found in of_kind(objects, "Secret"):
        if found["metadata"]["name"] == name:
            return values_of(found)[key].decode()
    raise Failed(f"there is no Secret {name}")


def for_podman(objects):
    """What podman plays of them, in an order that it takes. Debian's podman 4.3 knows no volume of a Secret:
    there the same file comes from a ConfigMap. Ports it would publish on this machine, where three nodes
    would want the same ones.
    """
    given = [copy.deepcopy(found) for kind in PLAYED for found in of_kind(objects, kind)]
    made = []
    for found in of_kind(given, "Deployment"):
        pod = found["spec"]["template"]["spec"]
        for container in pod["containers"]:
            container.pop("ports")
        for volume in pod["volumes"]:
            if "secret" not in volume:
                continue
            of = volume.pop("secret")
            name = f"{of['secretName']}-files"
            data = {item["key"]: decoded(objects, of["secretName"], item["key"]) for item in of["items"]}
            made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
            volume["configMap"] = {"name": name, "items": of["items"]}
    return made + given


class Nodes:
    """The pods of the Deployment."""

    def __init__(self, objects):
        self.deployment, self.container = gateway(objects)
        self.template = self.deployment["spec"]["template"]
        self.names = [f"{self.deployment['metadata']['name']}-pod-{n}" for n in range(self.deployment["spec"]["replicas"])]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}

    def address(self, name):
        infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", name)
        return podman("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", infra)

    def inspect(self, name, form):
        return podman("inspect", "--format", form, f"{name}-{self.container['name']}")

    def log(self, name):
        done = subprocess.run(["podman", "logs", f"{name}-{self.container['name']}"], capture_output=True, text=True)
        return (done.stdout + done.stderr)[-2000:]

    def until_ready(self):
        """By the probe of the manifest, which podman itself cannot ask without a shell in the image."""
        probe = self.container["readinessProbe"]["httpGet"]
        for name in self.names:
            url = f"http://{self.address(name)}:{self.ports[probe['port']]}{probe['path']}"

            def asked(name=name, url=url):
                if self.inspect(name, "{{.State.Running}}") != "true":
                    raise Failed(f"{name} has ended: {self.log(name)}")
                return http("GET", url)[0] == 200

            until(f"{name} is ready", asked)

    def confined(self, name):
        """As the manifest says, by what the kernel knows."""
        wanted = self.container["resources"]["limits"]["memory"]
        pid = self.inspect(name, "{{.State.Pid}}")
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        found = {
            "user": status["Uid"].split()[0], "capabilities": int(status["CapEff"], 16), "privileges": status["NoNewPrivs"],
            "read-only": self.inspect(name, "{{.HostConfig.ReadonlyRootfs}}"),
            "memory": int(self.inspect(name, "{{.HostConfig.Memory}}")),
        }
        right = {"user": "65532", "capabilities": 0, "privileges": "1", "read-only": "true",
                 "memory": int(wanted[:-2]) * UNITS[wanted[-2:]]}
        if found != right:
            raise Failed(f"{name} runs as {found}, not as {right}")

    def joined(self, key):
        """All of them know each other by the names of the pods."""
        url = f"http://{self.address(self.names[0])}:{self.ports['api']}/v1/nodes"

        def asked():
            status, body = http("GET", url, key=key)
            return status == 200 and sorted(node["node"] for node in json.loads(body)["nodes"]) == self.names

        until(f"the nodes are {', '.join(self.names)}", asked)

    def end(self):
        """They end by themselves within the time that the manifest gives them."""
        grace_s = self.template["spec"]["terminationGracePeriodSeconds"]
        for name in self.names:
            podman("pod", "stop", "--time", str(grace_s), name, patience_s=grace_s + 30)
            code = self.inspect(name, "{{.State.ExitCode}}")
            if code != "0":
                raise Failed(f"{name} ended with {code}: {self.log(name)}")


def serve(objects, nodes, folder):
    """HAProxy under the names of the Services."""
    lines = ["global", "    maxconn 1000", "defaults", "    mode tcp", "    timeout connect 2s",
             "    timeout client 60s", "    timeout server 60s"]
    aliases = []
    for service in of_kind(objects, "Service"):
        if service["spec"].get("clusterIP") == "None":
            continue
        if not hits(service["spec"]["selector"], nodes.template["metadata"]["labels"]):
            raise Failed(f"Service {service['metadata']['name']} selects no pod")
        aliases += ["--network-alias", service["metadata"]["name"]]
        for port in service["spec"]["ports"]:
            lines += [f"listen {service['metadata']['name']}-{port['name']}", f"    bind :{port['port']}"]
            lines += [f"    server {name} {nodes.address(name)}:{nodes.ports[port['targetPort']]}" for name in nodes.names]
    file = pathlib.Path(folder) / "haproxy.cfg"
    file.write_text("\n".join(lines) + "\n")
    podman("run", "--detach", "--name", f"{NETWORK}-services", "--pull", "never", "--network", NETWORK, *aliases,
           "--sysctl", "net.ipv4.ip_unprivileged_port_start=0",
           "--volume", f"{file}:/usr/local/etc/haproxy/haproxy.cfg:ro", PROXY_IMAGE)


def round_trip(pod, nodes):
    """Plays the test pod to its end. What it said of the message that came back."""
    play([pod])
    name = pod["metadata"]["name"]
    container = f"{name}-{pod['spec']['containers'][0]['name']}"
    try:
        # `podman wait` of 4.3 takes 20 s for one that has ended and is not cleared up.
        status = ["inspect", "--format", "{{.State.Status}}", container]
        until("the test pod ends", lambda: podman(*status) in ("stopped", "exited"))
        code = podman("inspect", "--format", "{{.State.ExitCode}}", container)
        done = subprocess.run(["podman", "logs", container], capture_output=True, text=True)
    finally:
        podman("pod", "rm", "--force", "--time", "0", name)
    if code != "0":
        raise Failed(f"the test pod ended with {code}: {(done.stdout + done.stderr).strip()}")
    said = json.loads(done.stdout)
    if not said["ok"] or said["node"] not in nodes.names or not said["position"]:
        raise Failed(f"the test pod said {said}, the nodes are {nodes.names}")
    return said


def with_wrong_key(pod, variable):
    """The test pod with another Secret for a variable, and that Secret."""
    pod = copy.deepcopy(pod)
    for one in pod["spec"]["containers"][0]["env"]:
        if one["name"] == variable:
            one["valueFrom"]["secretKeyRef"]["name"] = f"wrong-{variable.lower().replace('_', '-')}"
            ref = one["valueFrom"]["secretKeyRef"]
            return pod, secret(ref["name"], {ref["key"]: uuid.uuid4().hex})
    raise Failed(f"the test pod has no {variable}")


def found_wrong_keys(pod, nodes):
    """Each wrong key must be found, by the words that it is to be found by."""
    for variable, words in WRONG_KEYS.items():
        wrong, its_secret = with_wrong_key(pod, variable)
        play([its_secret])
        try:
            round_trip(wrong, nodes)
        except Failed as failed:
            if words not in str(failed) or "ended with 1:" not in str(failed):
                raise Failed(f"with a wrong {variable} {failed}") from None
        else:
            raise Failed(f"the test pod came through with a wrong {variable}")


def played(label, objects, pod, image):
    began = time.monotonic()
    nodes = Nodes(objects)
    strange = {found["kind"] for found in objects} - UNPLAYED - set(PLAYED)
    if strange:
        raise Failed(f"nothing here knows how to play {', '.join(sorted(strange))}")
    podman("tag", image, nodes.container["image"])
    with network(), tempfile.TemporaryDirectory() as folder:
        volumes = [volume["secret"] for volume in nodes.template["spec"]["volumes"] if "secret" in volume]
        for volume in volumes:
            password = decoded(objects, volume["secretName"], volume["items"][0]["key"])
            podman("run", "--detach", "--name", f"{NETWORK}-redis", "--pull", "never", "--network", NETWORK,
                   "--network-alias", "redis", REDIS_IMAGE, "valkey-server", "--save", "", "--requirepass", password)
        play(for_podman(objects))
        nodes.until_ready()
        for name in nodes.names:
            nodes.confined(name)
        key = next(one["valueFrom"]["secretKeyRef"] for one in nodes.container["env"] if one["name"] == "FANFARE_API__KEYS")
        nodes.joined(decoded(objects, key["name"], key["key"]))
        serve(objects, nodes, folder)
        said = round_trip(pod, nodes)
        found_wrong_keys(pod, nodes)
        nodes.end()
    left_out = sorted({found["kind"] for found in objects} - set(PLAYED))
    many = f"{len(nodes.names)} nodes over Redis" if volumes else f"{len(nodes.names)} node"
    print(f"{label}: {many} ready, confined, listed by the names of their pods; "
          f"the test pod's message came back by {said['node']} in {said['total_ms']} ms; {len(WRONG_KEYS)} wrong keys found; "
          f"all ended with 0; {time.monotonic() - began:.0f} s. Not played: {', '.join(left_out)}", flush=True)


def main():
    seen = 0
    try:
        for label, objects, pod in groups():
            played(label, objects, pod, sys.argv[1])
            seen += 1
    except Failed as failed:
        print(f"check-pods: {failed}", file=sys.stderr)
        return 1
    return 0 if seen == 3 else 1


if __name__ == "__main__":
    sys.exit(main())
