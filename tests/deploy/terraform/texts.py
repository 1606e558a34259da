"""Modules as text: what a reader must find, and names that must be those of the node.

In: the folders of terraform/. Out: a list of faults, each with its place. Terraform itself would take
all of what is refused here.
"""

import re
from pathlib import Path

RUNS_MIN = 3
METRIC = re.compile(r'"(fanfare_[a-z_]+)"')
SETTING = re.compile(r"\b(FANFARE_[A-Z0-9]+__[A-Z0-9_]+)\b")
SKIP = re.compile(r"#checkov:skip=(\S+)")
BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.M | re.S)
# A line of Terraform's own lock file, or the address of a registry, would tie the checks to one place.
REGISTRY = re.compile(r"registry\.[a-z]+\.[a-z]+")


def folders(root):
    """Every module and example, as paths below terraform/."""
    found = sorted(path.parent for path in (root / "terraform").rglob("versions.tf"))
    return [path.relative_to(root / "terraform") for path in found]


def files(root, folder, pattern="*.tf"):
    return sorted((root / "terraform" / folder).glob(pattern))


def module_faults(root, folder):
    """One module: what it declares, and its tests."""
    faults = []
    place = f"terraform/{folder}"
    versions = (root / place / "versions.tf").read_text()
    for line in re.findall(r"(?:required_version|version) += .*", versions):
        if "<" not in line:
            faults.append(f"{place}/versions.tf: no upper bound: {line.strip()}")
    names = {"variables.tf", "main.tf", "outputs.tf", "README.md"}
    for name in sorted(names):
        if not (root / place / name).exists():
            faults.append(f"{place}: {name} is missing")
    for path in files(root, folder):
        for kind, name, body in BLOCK.findall(path.read_text()):
            for needed in ("description", "type") if kind == "variable" else ("description",):
                if not re.search(rf"^  {needed} +=|^  {needed} =", body, re.M):
                    faults.append(f"{place}/{path.name}: {kind} {name} has no {needed}")
        if len(path.read_text().splitlines()) >= 500:
            faults.append(f"{place}/{path.name}: 500 lines or more")
    return faults + test_faults(root, folder)


def test_faults(root, folder):
    """Modules have at least three runs, one of which must be refused; examples at least one."""
    text = "".join(path.read_text() for path in files(root, folder, "tests/*.tftest.hcl"))
    runs = len(re.findall(r'^run "', text, re.M))
    is_module = folder.parts[0] != "examples"
    faults = []
    if runs < (RUNS_MIN if is_module else 1):
        faults.append(f"terraform/{folder}/tests: {runs} runs are too few")
    if is_module and "expect_failures" not in text:
        faults.append(f"terraform/{folder}/tests: no run has expect_failures")
    # The last of two runs of one name would hide the first.
    named = re.findall(r'^run "(\w+)"', text, re.M)
    faults += [f"terraform/{folder}/tests: run {name} twice" for name in {n for n in named if named.count(n) > 1}]
    return faults


def name_faults(root, folder):
    """Metrics and settings must be those that the pages list."""
    metrics = (root / "docs/metrics.md").read_text()
    settings = (root / "docs/configuration.md").read_text()
    faults = []
    for path in files(root, folder) + files(root, folder, "tests/*.tftest.hcl"):
        text = path.read_text()
        place = f"{path.relative_to(root)}"
        faults += [
            f"{place}: docs/metrics.md has no metric {name}"
            for name in sorted(set(METRIC.findall(text)))
            if f"`{name}`" not in metrics
        ]
        faults += [
            f"{place}: docs/configuration.md has no variable {name}"
            for name in sorted(set(SETTING.findall(text)))
            if f"`{name}`" not in settings
        ]
        for skip in SKIP.findall(text):
            if not re.match(r"^[A-Z0-9_]+:\S", skip):
                faults.append(f"{place}: checkov:skip={skip} has no reason")
        if REGISTRY.search(text):
            faults.append(f"{place}: names the host of a registry")
    return faults


def lock_faults(root):
    """Lock files would hold the hashes of the checks' own providers."""
    return [f"{path.relative_to(root)}: a lock file" for path in (root / "terraform").rglob(".terraform.lock.hcl")]


def faults(root, chosen):
    found = lock_faults(root)
    for folder in chosen:
        found += module_faults(root, folder) + name_faults(root, folder)
    return found


def wanted(root, provider):
    """The types of a provider that configurations use: {"resources": [...], "data": [...]}."""
    found = {"resources": set(), "data": set()}
    for path in (root / "terraform").rglob("*.tf"):
        for kind, name in re.findall(r'^(resource|data) "(\w+)"', path.read_text(), re.M):
            if name.startswith(f"{provider}_"):
                found["resources" if kind == "resource" else "data"].add(name)
    return {kind: sorted(names) for kind, names in found.items()}


def root_of(path):
    return Path(path).resolve()
