"""Whether each value of the chart does something.

In: values.yaml, the files of ci/. Out: values that no file sets, and values that could be taken out of every
file that sets them without a change of what comes out. What they must do is said by other checks; this one
finds those that nothing looks at, and which no other check would see.
"""

import copy
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor

import yaml

from chart_readme import leaves
from objects import CHART, RELEASE, helm, values_files

# Values whose whole effect is that something is refused: bad_values.py tries them.
REFUSE_ALONE = {"api.createSecret"}


def part(values, path):
    """What stands at a path, or None. A value may be set as a whole, above the path that values.yaml has."""
    for key in path.split("."):
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def without(values, path):
    left = copy.deepcopy(values)
    *above, last = path.split(".")
    del (part(left, ".".join(above)) if above else left)[last]
    return left


def made(values):
    """What the chart makes of values, or that it refuses them."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        done = helm("template", RELEASE, CHART, "--namespace", "fanfare", "--values", file.name)
    return done.stdout if done.returncode == 0 else "refused"


def fault_of(path, files):
    setting = [(stem, values) for stem, values in files.items() if part(values, path) is not None]
    if not setting:
        return f"{path} is set by no file of helm/fanfare/ci: set it in one, so that it is seen what it does"
    # One file is enough.
    if any(made(values) != made(without(values, path)) for _, values in setting):
        return None
    return f"{path} does nothing in {', '.join(stem for stem, _ in setting)}"


def check():
    files = {file.stem: yaml.safe_load(file.read_text()) for file in values_files()}
    paths = [path for path, _ in leaves(yaml.safe_load((CHART / "values.yaml").read_text()))]
    paths = [path for path in paths if path not in REFUSE_ALONE]
    with ThreadPoolExecutor(2) as pool:
        faults = [fault for fault in pool.map(lambda path: fault_of(path, files), paths) if fault]
    return len(paths), faults
