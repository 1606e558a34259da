"""The tables of variables and outputs in the README of each module, made from its files.

In: variables*.tf and outputs.tf. Out: what stands in README.md below the line MARK. With --write the
files are written, otherwise what differs is a fault.
"""

import re
import sys
from pathlib import Path

MARK = "<!-- Made by tests/deploy/terraform/readmes.py --write from here on. -->"
BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.M | re.S)


def attribute(body, name):
    """The text of an attribute of a block as `terraform fmt` leaves it, or None."""
    found = re.search(rf"^  {name} +=\s(.*?)(?=^  \w|^\Z|\Z)", body, re.M | re.S)
    return re.sub(r"\s+", " ", found.group(1)).strip() if found else None


def text(quoted):
    return quoted.strip('"').replace('\\"', '"').replace("|", "\\|")


def code(value):
    return f"`{value}`" if len(value) <= 60 else f"`{value.split('(')[0]}(…)`"


def tables(folder):
    variables, outputs = [], []
    for path in sorted(folder.glob("variables*.tf")) + [folder / "outputs.tf"]:
        for kind, name, body in BLOCK.findall(path.read_text()):
            what = text(attribute(body, "description"))
            if kind == "output":
                outputs.append(f"| `{name}` | {what} |")
                continue
            default = attribute(body, "default")
            shown = "needed" if default is None else code(default)
            variables.append(f"| `{name}` | {what} | {code(attribute(body, 'type'))} | {shown} |")
    lines = ["## Variables", "", "| variable | what | type | default |", "|---|---|---|---|", *variables, ""]
    lines += ["## Outputs", "", "| output | what |", "|---|---|", *outputs, ""]
    return "\n".join(lines)


def expected(folder):
    """The README as it must be: its head as written, its tables as made."""
    readme = folder / "README.md"
    head = readme.read_text().split(MARK)[0] if readme.exists() else ""
    return f"{head.rstrip()}\n\n{MARK}\n\n{tables(folder)}"


def faults(root, chosen):
    found = []
    for folder in chosen:
        path = root / "terraform" / folder
        readme = path / "README.md"
        if not readme.exists() or readme.read_text() != expected(path):
            found.append(f"terraform/{folder}/README.md is not of today: tests/deploy/terraform/readmes.py --write")
    return found


def main():
    root = Path(__file__).resolve().parents[3]
    if sys.argv[1:] != ["--write"]:
        sys.exit("readmes.py --write")
    for versions in sorted((root / "terraform").rglob("versions.tf")):
        (versions.parent / "README.md").write_text(expected(versions.parent))


if __name__ == "__main__":
    main()
