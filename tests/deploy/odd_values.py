"""Values that are passed on, names that YAML takes for something else, and variables that the chart knows.

In: the chart, its files of ci/, chart_schema.py. Out: fields that are not what was given, names that are no
texts, variables that change what the chart reckons with and could be given beside it.
"""

import json
import re
import tempfile

import yaml

import chart_schema
from checking import CRD_GROUPS, schema_fault
from objects import CHART, gateway, helm, name, of_kind, parsed

# Each is a legal name of its kind, and a number or a truth without quotes.
ODD = {
    "fullnameOverride": "gateway",
    "redis": {"url": "", "existingSecret": "2026", "secretKeys": {"url": "on", "shards": "1e5"}},
    "auth": {"existingSecret": "1234", "secretKeys": {"hmacSecret": "yes"}},
    "api": {"existingSecret": "0x10", "secretKeys": {"keys": "null", "key": "true"}},
    "telemetry": {"endpoint": "http://collector:4318", "headers": {"existingSecret": "1e3", "key": "off"}},
    "tests": {"enabled": True, "existingSecret": "007", "tokenKey": "no"},
    "ingress": {"enabled": True, "className": "1"},
    "serviceAccount": {"name": "1e2"},
    "priorityClassName": "1000",
    "runtimeClassName": "1",
    "nameOverride": "on",
}
# (release, namespace)
PLACES = [("123", "1234"), ("1e5", "on"), ("no", "null")]


def rendered(values, release, namespace):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        return helm("template", release, CHART, "--namespace", namespace,
                    "--values", CHART / "ci/kustomize.yaml", "--values", file.name)


def odd_names():
    seen, faults = 0, []
    for release, namespace in PLACES:
        done = rendered(ODD, release, namespace)
        if done.returncode:
            faults.append(f"{release} in {namespace}: {done.stderr.strip()}")
            continue
        for found in parsed(done.stdout):
            seen += 1
            fault = None if found["apiVersion"] in CRD_GROUPS else schema_fault(found, "1.33")
            if fault:
                faults.append(f"{release} in {namespace}, {found['kind']}: {fault}")
            where = found["metadata"].get("namespace")
            if where != namespace:
                faults.append(f"{release} in {namespace}, {found['kind']}: it is in {where}")
    return seen, faults


def given(groups):
    """What is given is there as it was given: budgets and accounts, which change what else is asked of nobody."""
    seen, faults = 0, []
    for label, objects in groups.items():
        values = yaml.safe_load((CHART / f"ci/{label}.yaml").read_text())
        budget = {key: value for key, value in values.get("podDisruptionBudget", {}).items() if key != "enabled"}
        for found in of_kind(objects, "PodDisruptionBudget"):
            seen += 1
            said = {key: found["spec"].get(key) for key in ("minAvailable", "maxUnavailable") if key in found["spec"]}
            if said != (budget or {"maxUnavailable": 1}):
                faults.append(f"{label}, {name(found)}: it says {said}, and {budget} was given")
        account = gateway(objects)[0]["spec"]["template"]["spec"]["serviceAccountName"]
        asked = values.get("serviceAccount", {})
        made = [one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")]
        seen += 1
        if asked.get("create", True) and [account] != made:
            faults.append(f"{label}: pods have the account {account}, and {made} are made")
        elif not asked.get("create", True) and account != asked.get("name", "default"):
            faults.append(f"{label}: pods have the account {account}, and {asked} was given")
    return seen, faults


def own_variables():
    """Every setting that the chart sets, or reckons with, is refused as a variable."""
    files = {file.name: file.read_text() for file in (CHART / "templates").glob("*.tpl")}
    templates = "\n".join(files.values())
    # What only refuses a setting reckons with nothing.
    reckoning = "\n".join(text for file, text in files.items() if not file.startswith("_checks"))
    refused = set(re.findall(r"^(FANFARE_\w+): ", templates, re.MULTILINE))
    wanted = {"FANFARE_ENV", "FANFARE_SIZE"}
    page = chart_schema.sections((CHART / "../../docs/configuration.md").resolve().read_text())
    for section, keys in chart_schema.SET_BY_CHART.items():
        wanted |= {variable(section, key) for key in (page[section] if keys is None else keys)}
    # Headers of one signal have no value of their own: they come by a variable.
    wanted -= {variable("telemetry", f"{signal}_headers") for signal in ("traces", "logs", "metrics")}
    reckoned = re.findall(r'"fanfare\.setting" \(list \S+ "(\w+)" "(\w+)"', reckoning)
    reckoned += [("telemetry", key) for key in re.findall(r'"(\w+_endpoint)"', templates)]
    wanted |= {variable(*pair) for pair in reckoned} | {variable("queue", "capacity")}
    return len(wanted), [f"extraEnv may have {one}, and the chart would reckon with another setting: add it to "
                         "fanfare.ownVariables" for one in sorted(wanted - refused)]


def variable(section, key):
    return f"FANFARE_{section.upper()}__{key.upper()}"
