"""What docs/kubernetes.md shows, against the chart.

In: the blocks of the page. Out: values that the chart refuses, manifests that no schema knows though they
are not marked, commands of Helm with values or folders that are not there, and figures that are not those
of the chart.
"""

import re
import shlex
import tempfile
from pathlib import Path

from checking import schema_fault
from objects import CHART, ROOT, helm, parsed

PAGE = ROOT / "docs/kubernetes.md"
# Objects of others, for which there are no schemas here. Their sections are marked.
MARKED = ("gateway.envoyproxy.io/v1alpha1", "networking.gke.io/v1")
MARK = "Documented, not tested."
# What each block of values is put on: a Redis and secrets by name.
GROUND = CHART / "ci/kustomize.yaml"


def blocks(text):
    """(heading, language, body) of every block."""
    heading, language, body = "", None, []
    for line in text.splitlines():
        if language is None and line.startswith("#"):
            heading = line.lstrip("# ")
        fence = re.match(r"```(\w*)$", line)
        if fence and language is None:
            language, body = fence[1], []
        elif fence:
            yield heading, language, "\n".join(body)
            language = None
        elif language is not None:
            body.append(line)


def values_fault(body):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.yaml"
        file.write_text(body)
        done = helm("template", "fanfare", CHART, "--values", GROUND, "--values", file)
    return done.stderr.strip() if done.returncode else None


def manifest_faults(heading, body, text):
    for found in parsed(body):
        if found["apiVersion"] not in MARKED:
            fault = schema_fault(found, "1.37")
            if fault:
                yield f"{heading}: {found['kind']}: {fault}"
        elif MARK not in text.partition(f"# {heading}\n")[2][:200]:
            yield f"{heading}: {found['kind']} is not marked {MARK!r}"


def command_faults(heading, body):
    """Folders and files that are named are there, and flags of Helm are flags of its command."""
    # What stands between END and END is no command.
    for line in re.sub(r"<<'END'\n.*?\nEND", "", body, flags=re.DOTALL).splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            if re.match(r"(helm|k8s)/", word) and not (ROOT / word).exists():
                yield f"{heading}: there is no {word}: {line}"
        if words[:1] == ["helm"]:
            flags = {word.split("=")[0] for word in words if word.startswith("--")}
            verbs = [w for w in words[1:] if w in ("install", "upgrade", "test", "rollback", "history", "uninstall",
                                                   "template")]
            known = helm(verbs[0], "--help").stdout if verbs else ""
            for flag in flags:
                if not re.search(rf"{flag}\b", known):
                    yield f"{heading}: helm {verbs} has no {flag}"


def figure_faults(text, groups):
    """The grace periods and sizes that the page names are those of the chart."""
    with_redis, alone = (grace(groups[label]) for label in ("kustomize", "default"))
    if f"{alone - 15} s alone and {with_redis - 15} s with Redis" not in text:
        yield f"the longest stop is {alone - 15} s alone and {with_redis - 15} s with Redis"
    if f"{alone} s and {with_redis} s" not in text:
        yield f"the grace period is {alone} s and {with_redis} s"
    for size in ("small", "medium", "large", "enterprise"):
        done = helm("template", "fanfare", CHART, "--set", f"size={size}", "--show-only", "templates/deployment.yaml")
        container = parsed(done.stdout)[0]["spec"]["template"]["spec"]["containers"][0]
        asked = container["resources"]["requests"]
        if not re.search(rf"\| `{size}` \| [\d,]+ \| {asked['cpu']} \| {asked['memory']} \|", text):
            yield f"the row of size {size} does not say {asked}"


def grace(objects):
    deployment = next(one for one in objects if one["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def check(groups):
    text, seen, faults = PAGE.read_text(), 0, []
    for heading, language, body in blocks(text):
        seen += 1
        if language == "sh":
            faults += command_faults(heading, body)
        elif language == "yaml" and "apiVersion:" in body:
            faults += manifest_faults(heading, body, text)
        elif language == "yaml":
            fault = values_fault(body)
            faults += [f"{heading}: the chart refuses the values: {fault}"] if fault else []
    return seen, faults + list(figure_faults(text, groups))
