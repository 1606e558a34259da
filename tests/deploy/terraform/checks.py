"""The checks of Terraform, one step after the other, and the planted breaches that each must find.

In: modules and examples below terraform/. Out: a line for each step with what it saw, faults on stderr,
exit 1 where there is one. Providers are those of stub.py, which one process serves for the whole run;
what `terraform init` writes goes into a temporary folder, so that the tree stays as it is.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import drain
import readmes
import texts

HERE = Path(__file__).resolve().parent
PASSED = re.compile(r"(\d+) passed, (\d+) failed")
STEPS = ("fmt", "texts", "readmes", "validate", "tflint", "test", "drain", "checkov")
# They judge by times of some seconds.
TIMED_STEPS = ("drain",)


class Providers:
    """The stub providers, as long as the block lasts."""

    def __init__(self, options, root):
        self.schemas = [self.schema(options, root, name) for name in ("aws", "google")]

    def schema(self, options, root, name):
        """The schemas of the types in use, kept until types, package or reader change."""
        wanted = texts.wanted(root, name)
        package = getattr(options, name)
        key = json.dumps(wanted) + package + (HERE / "schemas.py").read_text()
        stem = Path(options.tools) / "terraform-schemas" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        made = stem.with_suffix(".json")
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            for old in made.parent.glob(f"{name}-*"):
                old.unlink()
            stem.with_suffix(".wanted").write_text(json.dumps(wanted))
            command = [sys.executable, HERE / "schemas.py", package, name, stem.with_suffix(".wanted"), stem.with_suffix(".new")]
            subprocess.run(command, check=True)
            stem.with_suffix(".new").rename(made)
        found = json.loads(made.read_text())
        print(f"schemas: {name}: {len(found['resources'])} resources, {len(found['data'])} data sources")
        return f"{name}={made}"

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="fanfare-tf-")
        self.process = subprocess.Popen(
            [sys.executable, HERE / "stub.py", self.folder, *self.schemas],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        reattach = self.process.stdout.readline().strip()
        if not reattach:
            sys.exit("check-terraform: the stub providers did not start")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        environment |= {"TF_REATTACH_PROVIDERS": reattach, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        self.environment = environment
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        shutil.rmtree(self.folder)


def terraform(root, folder, providers, *arguments):
    data = Path(providers.folder) / hashlib.sha256(f"{root}{folder}".encode()).hexdigest()[:12]
    return subprocess.run(
        ["terraform", *arguments],
        cwd=root / "terraform" / folder,
        env=providers.environment | {"TF_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )


def fmt(root, chosen, providers, options):
    done = terraform(root, ".", providers, "fmt", "-check", "-recursive", "-no-color")
    seen = len(list((root / "terraform").rglob("*.tf"))) + len(list((root / "terraform").rglob("*.tftest.hcl")))
    return seen, [f"terraform fmt: {line}" for line in (done.stdout + done.stderr).split("\n") if line]


def validate(root, chosen, providers, options):
    def one(folder):
        for arguments in (["init", "-backend=false", "-input=false"], ["validate"]):
            done = terraform(root, folder, providers, *arguments, "-no-color")
            if done.returncode:
                return [f"terraform/{folder}: terraform {arguments[0]}\n{done.stdout}{done.stderr}"]
        return []

    return len(chosen), [fault for found in each(one, chosen) for fault in found]


def test(root, chosen, providers, options):
    def one(folder):
        only = [f"-filter=tests/{options.only_of_breach}"] if options.only_of_breach else []
        done = terraform(root, folder, providers, "test", "-no-color", *only)
        counts = PASSED.search(done.stdout)
        passed = int(counts.group(1)) if counts else 0
        if done.returncode or not passed:
            return passed, [f"terraform/{folder}: terraform test\n{done.stdout}{done.stderr}"]
        return passed, []

    results = each(one, chosen)
    return sum(passed for passed, _ in results), [fault for _, found in results for fault in found]


def each(one, chosen):
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(one, chosen))


def checkov(root, chosen, providers, options):
    is_all = len(chosen) == len(texts.folders(root))
    if len(chosen) > 1 and not is_all:
        # Of several folders it says several JSON texts, one after the other.
        results = [checkov(root, [folder], providers, options) for folder in chosen]
        return sum(seen for seen, _ in results), [fault for _, found in results for fault in found]
    folder = root / "terraform" if is_all else root / "terraform" / chosen[0]
    command = [options.checkov, "--directory", str(folder), "--framework", "terraform", "--var-file", str(HERE / "checkov.tfvars")]
    command += ["--skip-download", "--compact", "--quiet", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        reports = json.loads(done.stdout)
    except json.JSONDecodeError:
        return 0, [f"checkov said no JSON: {done.stdout[-500:]}{done.stderr[-500:]}"]
    reports = reports if isinstance(reports, list) else [reports]
    seen, faults = 0, []
    for report in reports:
        summary = report.get("summary", {})
        seen += summary.get("passed", 0)
        faults += [f"checkov cannot read {path}" for path in report.get("results", {}).get("parsing_errors", [])]
        for failed in report.get("results", {}).get("failed_checks", []):
            where = f"{failed['file_path']}:{failed['file_line_range'][0]}"
            faults.append(f"checkov: {failed['check_id']} {failed['resource']} ({where}): {failed['check_name']}")
    return seen, sorted(set(faults))


def tflint(root, chosen, providers, options):
    def one(folder):
        place = root / "terraform" / folder
        command = [options.tflint, "--config", str(HERE / "tflint.hcl"), "--format", "json", "--chdir", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            report = json.loads(done.stdout)
        except json.JSONDecodeError:
            return [f"terraform/{folder}: tflint said no JSON: {done.stdout[-500:]}{done.stderr[-500:]}"]
        found = [
            f"{issue['range']['filename']}:{issue['range']['start']['line']}: tflint: {issue['rule']['name']}: {issue['message']}"
            for issue in report["issues"]
        ]
        return found + [f"terraform/{folder}: tflint: {error['message']}" for error in report["errors"]]

    return len(chosen), [fault for found in each(one, chosen) for fault in found]


def text_step(root, chosen, providers, options):
    return len(chosen), texts.faults(root, chosen)


def readme_step(root, chosen, providers, options):
    return len(chosen), readmes.faults(root, chosen)


def drain_step(root, chosen, providers, options):
    return drain.faults(root, options.only_of_breach)


RUN = {
    "fmt": (fmt, "files"),
    "texts": (text_step, "modules and examples"),
    "readmes": (readme_step, "READMEs"),
    "validate": (validate, "modules and examples"),
    "tflint": (tflint, "modules and examples"),
    "test": (test, "runs"),
    "drain": (drain_step, "cases of scripts/ecs-drain"),
    "checkov": (checkov, "checks passed"),
}


def check(root, chosen, steps, providers, options):
    """The faults of each step."""
    found = {}
    for step in steps:
        begun = time.monotonic()
        function, what = RUN[step]
        seen, faults = function(root, chosen, providers, options)
        if not seen and not faults:
            faults = [f"{step} saw nothing"]
        found[step] = faults
        print(f"{step}: {seen} {what}, {len(faults)} faults, {time.monotonic() - begun:.1f} s", flush=True)
        for fault in faults:
            print(fault, file=sys.stderr)
    return found


class Breach:
    """A planted breach: which check must find it, where, and what is put in place of what.

    `only` names the file of tests, or the case of scripts/ecs-drain, that finds it: the others are not run.
    """

    def __init__(self, path):
        self.name = path.name
        head, _, rest = path.read_text().partition("\n--- old\n")
        old, _, new = rest.partition("\n--- new\n")
        fields = dict(line.removeprefix("# ").split(": ", 1) for line in head.strip().split("\n"))
        self.check, self.file, self.says = fields["check"], Path(fields["file"]), fields["says"]
        self.only = fields.get("only")
        self.old, self.new = old, new.removesuffix("\n")

    def plant(self, root):
        target = root / self.file
        text = target.read_text()
        if text.count(self.old) != 1:
            sys.exit(f"{self.name}: {self.file} has the old text {text.count(self.old)} times, not once")
        target.write_text(text.replace(self.old, self.new))

    def folder(self):
        """The module that the file is in."""
        parts = self.file.parts[1:]
        return Path(*parts[:2])


def planted(root, providers, options):
    breaches = [Breach(path) for path in sorted((root / "tests/deploy/planted").glob(f"terraform-{options.breach}"))]
    missed = []
    for breach in breaches:
        with tempfile.TemporaryDirectory(prefix="fanfare-planted-") as copy:
            for part in ("terraform", "docs", "helm/fanfare/files", "scripts"):
                shutil.copytree(root / part, Path(copy) / part)
            breach.plant(Path(copy))
            options.only_of_breach = breach.only
            step = RUN[breach.check][0]
            # Tests need what init installs.
            before = [validate] if breach.check == "test" else []
            faults = []
            for function in [*before, step]:
                faults += function(Path(copy), [breach.folder()], providers, options)[1]
            # Terraform breaks its lines where they are long.
            said = re.sub(r"[\s│╷╵]+", " ", " ".join(faults))
            found = bool(faults) and breach.says in said
            print(f"{'found' if found else 'MISSED'}: {breach.name} by {breach.check}", flush=True)
            if not found:
                missed.append(f"{breach.name}: {breach.check} did not say \"{breach.says}\", but: {said[:600]}")
    for fault in missed:
        print(fault, file=sys.stderr)
    print(f"planted: {len(breaches)} breaches, {len(missed)} missed")
    return bool(missed) or not breaches


def main():
    parser = argparse.ArgumentParser()
    for name in ("aws", "google", "checkov", "tflint", "tools"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--static", action="store_true", help="without the steps that a busy machine makes fail")
    parser.add_argument("--breach", default="*", help="with --planted: those of these names alone, as drain-*")
    parser.add_argument("--only", action="append", default=[], help="a folder below terraform/")
    parser.add_argument("--step", action="append", default=[], choices=STEPS)
    options = parser.parse_args()
    root = texts.root_of(HERE.parents[2])
    options.checkov = os.path.abspath(options.checkov)
    options.only_of_breach = None
    with Providers(options, root) as providers:
        if options.planted:
            sys.exit(planted(root, providers, options))
        chosen = [Path(folder) for folder in options.only] or texts.folders(root)
        steps = [step for step in options.step or STEPS if not (options.static and step in TIMED_STEPS)]
        found = check(root, chosen, steps, providers, options)
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
