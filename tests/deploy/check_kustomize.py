"""The checks of k8s/, by their names.

In: the folders of k8s, the chart. Out: as checking.py says. Each folder is what the chart makes with
ci/kustomize.yaml and a few values more, apart from what is named here; so nothing is kept up twice.
BLESS=1 writes the files of WRITTEN.
"""

import functools
import json
import os
import re

import yaml

import checking
import rules_links
import rules_reaching
import rules_running
import rules_scaling
from objects import CHART, ROOT, kustomized, name, of_kind, parsed, template

FOLDER = ROOT / "k8s"
VALUES = CHART / "ci/kustomize.yaml"
BLESS = os.environ.get("BLESS") == "1"
# What Helm alone adds.
OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")

KEDA = ["autoscaling.mode=keda", "autoscaling.keda.prometheusAddress=http://prometheus.monitoring:9090"]
GATEWAY = ["gatewayApi.enabled=true", "gatewayApi.parentRefs[0].name=fanfare",
           "gatewayApi.parentRefs[0].sectionName=https", "gatewayApi.hostnames[0]=fanfare.example.com"]
DEV = ["environment=development", "size=small", "replicaCount=1", "redis.url=", "redis.existingSecret="]
PRODUCTION = ["size=large", "autoscaling.mode=hpa", "topologySpread.host=DoNotSchedule"]

# {folder: (namespace, values beside ci/kustomize.yaml, kinds that the chart has not)}
FOLDERS = {
    "base": ("fanfare", [], {"Namespace"}),
    "overlays/dev": ("fanfare-dev", DEV, {"Namespace", "Secret"}),
    "overlays/production": ("fanfare", PRODUCTION, {"Namespace"}),
    "overlays/keda": ("fanfare", KEDA, {"Namespace"}),
    "overlays/gateway-api": ("fanfare", GATEWAY, {"Namespace", "Gateway"}),
}
# {folder: the one file, or all, that BLESS=1 writes}. What else an overlay has is written by hand.
WRITTEN = {
    "base": None,
    "overlays/production": "hpa.yaml",
    "overlays/keda": "keda.yaml",
    "overlays/gateway-api": "httproute.yaml",
}
# Secrets that docs/kubernetes.md has made before k8s/ is applied.
SECRETS = {("fanfare-redis", "password"), ("fanfare-auth", "hmac-secret"), ("fanfare-api", "api-keys")}


@functools.cache
def groups():
    there = {str(file.parent.relative_to(FOLDER)) for file in FOLDER.rglob("kustomization.yaml")}
    if there != set(FOLDERS):
        raise SystemExit(f"k8s has {sorted(there)}, and {__file__} knows {sorted(FOLDERS)}")
    return {label: kustomized(FOLDER / label) for label in FOLDERS}


def rendered(label):
    namespace, sets, _ = FOLDERS[label]
    more = [part for text in sets for part in ("--set", text)]
    return template(VALUES, *more, "--namespace", namespace)


def without_helm(found):
    """An object as it is without Helm, with labels of pods too."""
    copy = json.loads(json.dumps(found))
    for label in OF_HELM:
        copy["metadata"].get("labels", {}).pop(label, None)
    return copy


def difference(mine, charts, path=""):
    """Where two values differ, in words."""
    if isinstance(mine, dict) and isinstance(charts, dict):
        for key in sorted(set(mine) | set(charts)):
            yield from difference(mine.get(key), charts.get(key), f"{path}/{key}")
    elif mine != charts:
        yield f"{path} is {json.dumps(mine)} and in the chart {json.dumps(charts)}"


def equal():
    seen, faults = 0, []
    if BLESS:
        for label, wanted in WRITTEN.items():
            write(label, wanted)
    for label, objects in groups().items():
        more = FOLDERS[label][2]
        mine = {name(found): without_helm(found) for found in objects if found["kind"] not in more}
        charts = {name(found): without_helm(found) for found in parsed(rendered(label))}
        seen += len(objects)
        for one in sorted(set(mine) ^ set(charts)):
            faults.append(f"{label}: {one} is only in {'k8s' if one in mine else 'the chart'}")
        for one in sorted(set(mine) & set(charts)):
            faults += [f"{label}, {one}: {told}" for told in difference(mine[one], charts[one])]
    return seen, faults


def write(label, wanted):
    """The files of a folder that are the chart's texts: all of its templates, or one."""
    files = {}
    for document in rendered(label).split("---\n"):
        source = re.match(r"# Source: fanfare/templates/(\S+)\n", document)
        if source and wanted in (None, source[1]):
            lines = document.splitlines()[1:]
            kept = [line.rstrip() for line in lines if not line.strip().startswith(tuple(f"{l}:" for l in OF_HELM))]
            files.setdefault(source[1], []).append(plain("\n".join(kept)).strip() + "\n")
    for file, texts in files.items():
        (FOLDER / label / file).write_text("---\n".join(texts))


def plain(text):
    """Names without the quotes that the chart needs, because a name of others may be a number or a word of YAML."""
    return re.sub(r'(: )"([a-z]+(?:-[a-z]+)*)"$', lambda found: found[1] + found[2]
                  if found[2] not in ("on", "off", "yes", "no", "true", "false", "null") else found[0],
                  text, flags=re.MULTILINE)


def secrets():
    faults, seen = [], 0
    for label, objects in groups().items():
        seen += len(list(rules_links.used_secrets(objects)))
        faults += [f"{label}: {fault}" for fault in rules_links.secret_keys(objects, SECRETS)]
    return seen, faults


def namespaces():
    """Each folder has its namespace, under Pod Security restricted, and everything is in it."""
    faults = []
    for label, objects in groups().items():
        wanted = FOLDERS[label][0]
        for found in of_kind(objects, "Namespace"):
            labels = found["metadata"].get("labels", {})
            for mode in ("enforce", "warn"):
                if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                    faults.append(f"{label}: its namespace does not {mode} restricted")
        spaces = {f["metadata"].get("namespace", f["metadata"]["name"]) for f in objects}
        if len(of_kind(objects, "Namespace")) != 1 or spaces != {wanted}:
            faults.append(f"{label}: its objects are in {sorted(spaces)}, not in {wanted} with a Namespace")
    return sum(map(len, groups().values())), faults


def gateways():
    """A Gateway that is beside the route has the listener that the route names, for its hosts, and lets it in."""
    faults, seen = [], 0
    for label, objects in groups().items():
        listeners = {(g["metadata"]["name"], one["name"]): one for g in of_kind(objects, "Gateway")
                     for one in g["spec"]["listeners"]}
        for route in of_kind(objects, "HTTPRoute"):
            for parent in route["spec"]["parentRefs"]:
                seen += 1
                listener = listeners.get((parent["name"], parent.get("sectionName")))
                if not listener or listener["protocol"] != "HTTPS":
                    faults.append(f"{label}: no Gateway here has the listener {parent} for HTTPS")
                    continue
                hosts = route["spec"].get("hostnames", [])
                if listener.get("hostname") and set(hosts) != {listener["hostname"]}:
                    faults.append(f"{label}: the listener is for {listener['hostname']}, and the route for {hosts}")
                # Gateway and route are in one namespace.
                if listener.get("allowedRoutes", {}).get("namespaces", {}).get("from", "Same") not in ("Same", "All"):
                    faults.append(f"{label}: the listener lets no route of its namespace in")
    return seen, faults


def ruled(*rules):
    return lambda: checking.by_rules(groups(), *rules)


CHECKS = {
    "equal": equal,
    "schemas": lambda: checking.server_schemas(groups()),
    "crds": lambda: checking.crd_schemas(groups()),
    "selectors": ruled(rules_links.selectors),
    "ports": ruled(rules_links.ports),
    "backends": ruled(rules_links.backends),
    "reach": ruled(rules_links.reach, rules_reaching.let_in, rules_reaching.let_out),
    "in-the-open": ruled(rules_reaching.in_the_open),
    "asked": ruled(rules_reaching.asked, rules_reaching.one_key),
    "variables": ruled(rules_links.variables),
    "volumes": ruled(rules_links.volumes),
    "secrets": secrets,
    "security": ruled(rules_running.security),
    "stop": ruled(rules_running.stop),
    "scaling": ruled(rules_running.scaling, rules_scaling.numbers, rules_scaling.queries),
    "names": ruled(rules_running.names),
    "namespaces": namespaces,
    "gateways": gateways,
    "checkov": lambda: checking.checkov(groups()),
}

if __name__ == "__main__":
    checking.main("check-k8s", CHECKS)
