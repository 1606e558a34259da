"""What the checks share: their order, how they tell what they saw, schemas of objects.

In: checks, each a function that gives the number of things it looked at, and faults. Out: one line for
each, and exit code 1 where one found a fault, or nothing to look at.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import kubernetes_validate
import yaml

from objects import ROOT, name, run

VERSIONS = ("1.30", "1.33", "1.37")


def main(title, checks):
    parser = argparse.ArgumentParser(prog=title)
    parser.add_argument("--only", action="append", choices=sorted(checks), help="run this check alone")
    chosen = parser.parse_args().only or list(checks)
    failed = []
    for label in chosen:
        begun = time.monotonic()
        seen, faults = checks[label]()
        if not seen:
            faults = [*faults, "it found nothing to look at"]
        took = time.monotonic() - begun
        print(f"{title} {label}: {seen} seen, {len(faults)} wrong, {took:.1f} s", flush=True)
        for fault in faults:
            print(f"  {label}: {fault}", flush=True)
        failed += [label] if faults else []
    if failed:
        sys.exit(f"{title}: failed: {', '.join(failed)}")


def by_rules(groups, *rules):
    """Rules over groups of objects: {label of the group: objects}."""
    seen, faults = 0, []
    for label, objects in groups.items():
        seen += len(objects)
        for rule in rules:
            faults += [f"{label}: {fault}" for fault in rule(objects)]
    return seen, faults


def server_schemas(groups):
    """Every object of Kubernetes itself by the schemas of three of its versions."""
    seen, faults = 0, []
    known = {}
    for label, objects in groups.items():
        for found in objects:
            if found["apiVersion"] in CRD_GROUPS:
                continue
            for version in VERSIONS:
                key = (json.dumps(found, sort_keys=True), version)
                if key not in known:
                    known[key] = schema_fault(found, version)
                seen += 1
                if known[key]:
                    faults.append(f"{label}, {name(found)}, {version}: {known[key]}")
    return seen, faults


def schema_fault(found, version):
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'/'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


CRD_GROUPS = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")


def crd_schemas(groups):
    """Every object of an extension by its CRD, unknown keys too."""
    objects = [(label, found) for label, group in groups.items() for found in group
               if found["apiVersion"] in CRD_GROUPS]
    judge = run("node", ROOT / "tests/deploy/crds.mjs", os.environ["KUBERNETES_MODELS"],
                input=json.dumps([found for _, found in objects]))
    if judge.returncode:
        return 0, [judge.stderr]
    faults = []
    for (label, found), said in zip(objects, json.loads(judge.stdout), strict=True):
        told = ["no package knows its kind"] if said is None else said
        faults += [f"{label}, {name(found)}: {fault}" for fault in told]
    return len(objects), faults


def checkov(groups):
    """What checkov says of all objects, apart from checkov.yaml. Pods of tests, which are Helm's hooks and
    serve nobody, are judged by rules_running alone."""
    with tempfile.TemporaryDirectory() as folder:
        for label, objects in groups.items():
            kept = [one for one in objects if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
            (Path(folder) / f"{label.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(kept))
        done = run(os.environ["CHECKOV"], "--directory", folder, "--framework", "kubernetes", "--skip-download",
                   "--quiet", "--compact", "--output", "json",
                   "--config-file", ROOT / "tests/deploy/checkov.yaml")
    try:
        told = json.loads(done.stdout)
    except json.JSONDecodeError:
        return 0, [done.stdout + done.stderr]
    # Without a failed check there is a summary alone.
    results = told.get("results", {}).get("failed_checks", [])
    summary = told.get("summary", told)
    faults = [f"{one['file_path']}, {one['resource']}: {one['check_id']} {one['check_name']}" for one in results]
    if summary.get("parsing_errors"):
        faults.append(f"{summary['parsing_errors']} files could not be read")
    return summary.get("passed", 0), faults
