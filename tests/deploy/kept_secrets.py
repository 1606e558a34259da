"""Whether secrets that the chart makes are made once and kept.

In: the chart, and a server that answers Helm's questions as an API server would: which kinds there are, and
one Secret. Out: secrets that are too short, the same twice, or made anew where there was one.
"""

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from objects import CHART, RELEASE, parsed, run

KINDS = {
    "v1": ["Secret", "Service", "ConfigMap", "ServiceAccount", "Pod"],
    "apps/v1": ["Deployment"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
}
KEPT = {"hmac-secret": "kept-token-secret", "api-key": "kept-api-key", "api-keys": "kept-api-key"}

# By this Helm knows its own objects, also those that an uninstall left.
OWNED = {
    "name": RELEASE, "namespace": "fanfare",
    "labels": {"app.kubernetes.io/managed-by": "Helm"},
    "annotations": {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": "fanfare"},
}


def coded(values):
    return {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}


def answers(secret, deployment=None):
    """What the server says, by path."""
    groups = [version for version in KINDS if "/" in version]
    said = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "groups": [
            {"name": version.split("/")[0], "versions": [{"groupVersion": version, "version": version.split("/")[1]}],
             "preferredVersion": {"groupVersion": version, "version": version.split("/")[1]}} for version in groups]},
    }
    for version, kinds in KINDS.items():
        said[f"/apis/{version}" if "/" in version else f"/api/{version}"] = {
            "kind": "APIResourceList", "groupVersion": version,
            "resources": [{"name": resource(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind,
                           "verbs": ["get", "list"]} for kind in kinds]}
    if secret:
        said[f"/api/v1/namespaces/fanfare/secrets/{RELEASE}"] = {
            "kind": "Secret", "apiVersion": "v1", "metadata": OWNED, "data": coded(secret)}
    if deployment:
        said[f"/apis/apps/v1/namespaces/fanfare/deployments/{RELEASE}"] = {
            "kind": "Deployment", "apiVersion": "apps/v1", **deployment}
    return said


def resource(kind):
    return kind.lower().replace("policy", "policie") + "s"


def serve(secret, deployment=None):
    said = answers(secret, deployment)
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = said.get(self.path.split("?")[0])
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def rendered(program, shown, sets, secret=None, deployment=None):
    """A template of the chart, as Helm makes it where the cluster has these objects."""
    server = serve(secret, deployment)
    more = [part for text in sets for part in ("--set", text)]
    done = run(program, "template", RELEASE, CHART, "--namespace", "fanfare", "--dry-run=server",
               "--disable-openapi-validation", "--kube-version", "1.33.0", "--kube-apiserver",
               f"http://127.0.0.1:{server.server_port}", "--show-only", f"templates/{shown}", *more,
               # Nobody's own cluster is asked.
               env={"KUBECONFIG": os.devnull, "HOME": "/nonexistent", "PATH": os.environ["PATH"]})
    server.shutdown()
    server.server_close()
    return done


def made(program, secret, *sets):
    """The values of the chart's Secret, where the cluster has this one."""
    done = rendered(program, "secret.yaml", sets, secret)
    if done.returncode:
        raise SystemExit(f"{program} cannot render against a server:\n{done.stderr}")
    data = parsed(done.stdout)[0]["data"]
    return {key: base64.b64decode(text).decode() for key, text in data.items()}


def faults_of(program):
    first, second = made(program, None), made(program, None)
    for key, text in first.items():
        if len(text) < 32 or text == second[key]:
            yield f"{key} is {len(text)} characters, the same each time: {text == second[key]}"
    if first["api-key"] != first["api-keys"]:
        yield "the one key of the API is not among its keys"
    if made(program, KEPT) != KEPT:
        yield "a Secret that is there is made anew"
    several = {**KEPT, "api-keys": "first-key-of-two,second-key-of-two", "api-key": "first-key-of-two"}
    if made(program, several) != several:
        yield "of several keys that are there one is kept"
    given = "given-given-given-given-given-given"
    if made(program, KEPT, f"auth.hmacSecret={given}") != {**KEPT, "hmac-secret": given}:
        yield "a secret that is given does not win over the kept one"


def check():
    programs = (os.environ["HELM"], os.environ["HELM3"])
    return 5 * len(programs), [f"{program}: {fault}" for program in programs for fault in faults_of(program)]
