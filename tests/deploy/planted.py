"""Tries planted breaches: each must be found by the check that it names.

In: files tests/deploy/planted/PART-NAME. The first line is the check, as `check-helm ports`; the second
says what is wrong; the third is the file; then lines that begin with `- ` are looked for, which must be
there, and those that begin with `+ ` are put in their place. Out: a line for each breach, and exit code 1
where one was not found.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the checks read.
COPIED = ("helm", "k8s", "docs", "tests/deploy", "Cargo.toml")


class Breach:
    def __init__(self, file):
        self.name = file.name
        self.check, self.what, self.file, *lines = file.read_text().splitlines()
        self.old = "\n".join(line[2:] for line in lines if line.startswith("-"))
        self.new = "\n".join(line[2:] for line in lines if line.startswith("+"))

    def plant(self, root):
        target = root / self.file
        text = target.read_text()
        if self.old not in text:
            return f"{self.file} has no {self.old!r}: write the breach anew"
        target.write_text(text.replace(self.old, self.new, 1))
        return None


def copy(root):
    for path in COPIED:
        source, target = ROOT / path, root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def run(root, check):
    program, _, only = check.partition(" ")
    tools = os.environ.get("DEPLOY_TOOLS", str(ROOT / "target/deploy-tools"))
    env = {**os.environ, "DEPLOY_TOOLS": tools}
    # Without it a breach would be written down as what is wanted.
    env.pop("BLESS", None)
    return subprocess.run([root / "tests/deploy" / program, "--only", only], env=env, capture_output=True, text=True)


def tried(breach):
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        fault = breach.plant(Path(folder))
        if fault:
            return fault
        done = run(Path(folder), breach.check)
    said = done.stdout + done.stderr
    only = breach.check.partition(" ")[2]
    if done.returncode == 0:
        return "not found"
    # A check that broke off has found nothing.
    if f"failed: {only}" not in said:
        return f"the check broke off:\n{said}"
    return None


def main(part):
    breaches = [Breach(file) for file in sorted((ROOT / "tests/deploy/planted").glob(f"{part}-*"))]
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for breach, fault in zip(breaches, pool.map(tried, breaches)):
            print(f"{breach.name}: {fault or 'found by ' + breach.check}")
            failed += bool(fault)
    print(f"{part}: {len(breaches)} breaches, {failed} not found")
    sys.exit(1 if failed or not breaches else 0)


if __name__ == "__main__":
    main(sys.argv[1])
