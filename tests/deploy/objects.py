"""Objects of Kubernetes as the checks see them, and where they come from.

In: the chart with a file of values, or a folder for kubectl kustomize. Out: lists of objects, and a few
questions that several checks ask of them.
"""

import os
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(os.environ.get("DEPLOY_ROOT", Path(__file__).resolve().parents[2]))
CHART = ROOT / "helm/fanfare"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RELEASE = "fanfare"


def parsed(text):
    return [found for found in yaml.load_all(text, Loader=LOADER) if found]


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)


def helm(*arguments):
    return run(os.environ["HELM"], *arguments)


def helm3(*arguments):
    return run(os.environ["HELM3"], *arguments)


def values_files():
    files = sorted((CHART / "ci").glob("*.yaml"))
    if len(files) < 9:
        raise SystemExit(f"helm/fanfare/ci has {len(files)} files; there must be at least 9")
    return files


def template(file, *more, by=helm):
    """The chart with a file of values, as the text that Helm makes."""
    done = by("template", RELEASE, CHART, "--namespace", "fanfare", "--values", file, *more)
    if done.returncode:
        raise SystemExit(f"{file.name} cannot be rendered:\n{done.stderr}")
    return done.stdout


def renderings():
    """{name of the file: text} for all files of values."""
    files = values_files()
    with ThreadPoolExecutor(2) as pool:
        return dict(zip((file.stem for file in files), pool.map(template, files)))


def kustomized(folder):
    done = run(os.environ["KUBECTL"], "kustomize", folder)
    if done.returncode:
        raise SystemExit(f"{folder} cannot be built:\n{done.stderr}")
    return parsed(done.stdout)


def name(thing):
    return f"{thing['kind']}/{thing['metadata'].get('name')}"


def of_kind(objects, *kinds):
    return [found for found in objects if found["kind"] in kinds]


def pod_specs(objects):
    """Everything that becomes pods: (object, metadata of the pod, its spec)."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found, found["metadata"], found["spec"]
        elif found["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            pod = found["spec"]["template"]
            yield found, pod.get("metadata", {}), pod["spec"]


def containers(spec):
    return spec.get("containers", []) + spec.get("initContainers", [])


def gateway(objects):
    """The Deployment of the nodes, and their container."""
    for found in of_kind(objects, "Deployment"):
        for container in found["spec"]["template"]["spec"]["containers"]:
            if container["name"] == "fanfare":
                return found, container
    raise SystemExit("there is no Deployment with a container fanfare")


def hits(selector, labels):
    """Whether a selector with matchLabels, or a plain map, selects these labels."""
    wanted = selector.get("matchLabels", selector) if selector else {}
    return all(labels.get(key) == value for key, value in wanted.items())


def settings(objects):
    """The configuration file of the nodes, read."""
    for found in of_kind(objects, "ConfigMap"):
        text = found.get("data", {}).get("fanfare.toml")
        if text is not None:
            return tomllib.loads(text)
    raise SystemExit("there is no ConfigMap with fanfare.toml")


def autoscalers(objects):
    return of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
