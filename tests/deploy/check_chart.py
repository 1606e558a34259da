"""The checks of helm/fanfare, by their names.

In: the chart, docs/configuration.md and docs/metrics.md. Out: as checking.py says. BLESS=1 writes what is
made: values.schema.json, the table of README.md, and the goldens.
"""

import functools
import json
import os
import tempfile
from pathlib import Path

import yaml

import adapter
import bad_values
import chart_readme
import chart_schema
import checking
import dead_values
import guide
import handover
import kept_secrets
import odd_values
import rules_links
import rules_reaching
import rules_running
import rules_scaling
from objects import (CHART, LOADER, ROOT, gateway, helm, helm3, of_kind, parsed, renderings, run,
                     settings, template, values_files)

GOLDENS = ROOT / "tests/deploy/goldens"
BLESS = os.environ.get("BLESS") == "1"


@functools.cache
def texts():
    return renderings()


@functools.cache
def groups():
    return {label: parsed(text) for label, text in texts().items()}


def held(file, text):
    """A file that is made is as it would be made now."""
    if BLESS:
        file.write_text(text)
    if file.exists() and file.read_text() == text:
        return []
    return [f"{file.relative_to(ROOT)} is not what it is made from: BLESS=1 tests/deploy/check-helm writes it"]


def values():
    text = (CHART / "values.yaml").read_text()
    schema = chart_schema.schema(text, (ROOT / "docs/configuration.md").read_text())
    faults = held(CHART / "values.schema.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    readme = CHART / "README.md"
    page, count = chart_readme.page(readme.read_text(), text)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    crate = [line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = ")]
    if crate[:1] != [f'version = "{chart["appVersion"]}"']:
        faults.append(f"appVersion of Chart.yaml is {chart['appVersion']}, and Cargo.toml has {crate[:1]}")
    return count, faults + held(readme, page)


def lint():
    files = values_files()
    asked = [part for file in files for part in ("--values", file)]
    faults = []
    for file in files:
        done = helm("lint", CHART, "--strict", "--values", file)
        if done.returncode:
            faults.append(f"{file.name}: {done.stdout}{done.stderr}")
    return len(asked) // 2, faults


# Helm 3 that is built from its module takes the cluster for one of Kubernetes 1.20.
OLDEST = ("--kube-version", "1.30.0")


def helm_3():
    """The oldest Helm finds nothing wrong, and makes the same objects."""
    faults = []
    for file in values_files():
        done = helm3("lint", CHART, "--strict", "--values", file, *OLDEST)
        if done.returncode:
            faults.append(f"{file.name}: {done.stdout}{done.stderr}")
        mine = sorted(json.dumps(one, sort_keys=True) for one in parsed(template(file, *OLDEST, by=helm3)))
        if mine != sorted(json.dumps(one, sort_keys=True) for one in groups()[file.stem]):
            faults.append(f"{file.name}: Helm 3 makes other objects than Helm 4")
    return len(groups()), faults


def golden_text(text):
    """A rendering without what its length comes from: dashboards are compared as a whole elsewhere."""
    lines, skips = [], False
    for line in text.splitlines():
        if skips and (line.startswith("    ") or not line.strip()):
            continue
        skips = line.endswith(".json: |")
        lines.append(line + (" # …" if skips else ""))
    return "\n".join(lines) + "\n"


def goldens():
    faults = []
    for label, text in texts().items():
        faults += held(GOLDENS / f"{label}.yaml", golden_text(text))
    spare = {file.stem for file in GOLDENS.glob("*.yaml")} - set(texts())
    return len(texts()), faults + [f"tests/deploy/goldens/{stem}.yaml has no file of values" for stem in spare]


def secrets():
    faults, seen = [], 0
    for label, objects in groups().items():
        given = yaml.safe_load((CHART / f"ci/{label}.yaml").read_text())
        found = list(rules_links.secret_keys(objects, named_secrets(given)))
        seen += len(list(rules_links.used_secrets(objects)))
        faults += [f"{label}: {fault}" for fault in found]
    return seen, faults


def named_secrets(given):
    """The Secrets that values name, each with the keys that they or the defaults say."""
    whole = yaml.safe_load((CHART / "values.yaml").read_text())
    pairs = set()

    def walk(defaults, said):
        secret = said.get("existingSecret")
        keys = {**defaults.get("secretKeys", {}), **said.get("secretKeys", {})}
        for key, default in defaults.items():
            if key.lower().endswith("key") and isinstance(default, str):
                keys[key] = said.get(key, default)
        if secret:
            pairs.update((secret, key) for key in keys.values())
        for key, inner in said.items():
            if isinstance(inner, dict) and isinstance(defaults.get(key), dict):
                walk(defaults[key], inner)

    walk(whole, given)
    refs = [one.get("valueFrom", {}).get("secretKeyRef") for one in given.get("extraEnv", [])]
    return pairs | {(ref["name"], ref["key"]) for ref in refs if ref}


# Keys of a section that the page describes apart, below a heading of their own.
LISTS_OF_TABLES = {"keys", "issuers", "clients"}


def config():
    """Every configuration file is one that the schema of the page knows, and that a binary takes that is named."""
    page = chart_schema.sections((ROOT / "docs/configuration.md").read_text())
    faults, seen = [], 0
    for label, objects in groups().items():
        for section, keys in settings(objects).items():
            tables = keys.values() if section == "namespaces" else [keys]
            known = page["namespaces.NAME" if section == "namespaces" else section]
            for key in {key for table in tables for key in table} - set(known) - LISTS_OF_TABLES:
                faults.append(f"{label}: {section}.{key} is no key of docs/configuration.md")
            seen += len(keys)
        faults += [f"{label}: {fault}" for fault in (judged_by_binary(objects) if BINARY else [])]
    if not BINARY:
        print("check-helm config: not compared with a binary: FANFARE_BINARY names none; "
              "cargo test --test cli config::chart does it with the goldens")
    return seen, faults


# What Secrets of others may hold.
STANDINS = {
    "FANFARE_REDIS__URL": "rediss://redis:6380?name=a",
    "FANFARE_REDIS__SHARDS": "rediss://other:6380?name=b",
    "FANFARE_TELEMETRY__HEADERS": "a=b",
    "FANFARE_TELEMETRY__TRACES_HEADERS": "a=b",
}


# A binary that happens to be built may be of another commit, so only one that is named is asked.
BINARY = os.environ.get("FANFARE_BINARY")


def judged_by_binary(objects):
    _, container = gateway(objects)
    plain = {v["name"]: v["value"] for v in container["env"] if "value" in v}
    env = {key: value for key, value in plain.items() if key.startswith("FANFARE_")}
    for variable in container["env"]:
        if "secretKeyRef" in variable.get("valueFrom", {}):
            env[variable["name"]] = STANDINS.get(variable["name"], "0123456789abcdef0123456789abcdef")
    with tempfile.TemporaryDirectory() as folder:
        text = next(c["data"]["fanfare.toml"] for c in of_kind(objects, "ConfigMap") if "fanfare.toml" in c["data"])
        for secret in ("redis/password", "redis-tls/ca.crt", "redis-tls/tls.crt", "redis-tls/tls.key"):
            text = "\n".join(line for line in text.splitlines() if f"/run/secrets/fanfare/{secret}" not in line)
        text = text.replace("/run/keys/", f"{folder}/")
        file = Path(folder) / "fanfare.toml"
        file.write_text(text.replace('user = "fanfare"\n', ""))
        (Path(folder) / "tokens.pem").write_text((ROOT / "tests/deploy/tokens.pem").read_text())
        done = run(BINARY, "config", "show", "--config", file, env={**env, "PATH": os.environ["PATH"]})
    if done.returncode:
        yield f"the binary refuses it: {done.stdout}{done.stderr}"
        return
    shown = {row["key"]: row["value"] for row in map(json.loads, done.stdout.splitlines())}
    if shown.get("stop.longest_s") != rules_running.longest_stop_s(objects):
        yield (f"the binary's longest stop is {shown.get('stop.longest_s')} s, and that of the chart "
               f"{rules_running.longest_stop_s(objects)}: mend templates/_stop.tpl, rules_running.py and the guide")


def alerts():
    """The alerts of the PrometheusRule are those of the file, and Prometheus takes them."""
    source = yaml.load((CHART / "files/rules.yaml").read_text(), LOADER)
    rules = of_kind(groups()["ha"], "PrometheusRule")
    faults = [] if len(rules) == 1 else ["ci/ha.yaml has no PrometheusRule"]
    for found in rules:
        again = json.loads(json.dumps(found["spec"]))
        for rule in (rule for group in again["groups"] for rule in group["rules"]):
            url = rule["annotations"]["runbook_url"]
            if not url.startswith("https://"):
                faults.append(f"{rule['alert']}: its runbook is {url}")
            rule["annotations"]["runbook_url"] = "docs/" + url.partition("/docs/")[2]
        if again != source:
            faults.append("the PrometheusRule has other alerts than files/rules.yaml")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(found["spec"], file)
            file.flush()
            done = run(os.environ["PROMTOOL"], "check", "rules", file.name)
            faults += [done.stdout + done.stderr] if done.returncode else []
    return sum(len(group["rules"]) for group in source["groups"]), faults


def dashboards():
    """Each dashboard is in a ConfigMap of its own, whole."""
    found = {key: text for c in of_kind(groups()["ha"], "ConfigMap") for key, text in c["data"].items()
             if key.endswith(".json")}
    faults, files = [], sorted((CHART / "files/dashboards").glob("*.json"))
    for file in files:
        if json.loads(found.pop(f"fanfare-{file.name}", "null")) != json.loads(file.read_text()):
            faults.append(f"{file.name} is not in the chart as it is")
    return len(files), faults + [f"{key} is no file" for key in found]


def bad_input():
    return bad_values.seen(), list(bad_values.faults())


def notes():
    return len(bad_values.NOTES), list(bad_values.notes_faults())


def ruled(*rules):
    return lambda: checking.by_rules(groups(), *rules)


CHECKS = {
    "values": values,
    "dead-values": dead_values.check,
    "lint": lint,
    "helm-3": helm_3,
    "goldens": goldens,
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
    "kept-secrets": kept_secrets.check,
    "handover": handover.check,
    "own-variables": odd_values.own_variables,
    "config": config,
    "security": ruled(rules_running.security),
    "stop": ruled(rules_running.stop),
    "scaling": ruled(rules_running.scaling, rules_scaling.numbers, rules_scaling.queries),
    "adapter": lambda: adapter.check(groups()),
    "pace": ruled(rules_running.pace),
    "given": lambda: odd_values.given(groups()),
    "odd-names": odd_values.odd_names,
    "names": ruled(rules_running.names),
    "alerts": alerts,
    "dashboards": dashboards,
    "bad-input": bad_input,
    "notes": notes,
    "guide": lambda: guide.check(groups()),
    "checkov": lambda: checking.checkov(groups()),
}

if __name__ == "__main__":
    if BINARY and not Path(BINARY).is_file():
        raise SystemExit(f"FANFARE_BINARY is {BINARY}, which is no file")
    checking.main("check-helm", CHECKS)
