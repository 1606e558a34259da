"""The table of values in helm/fanfare/README.md, made from values.yaml.

In: values.yaml, each key with a comment. Out: the page with the table between its two marks.
"""

import json

import yaml

from chart_schema import comments

BEGIN, END = "<!-- values: made from values.yaml by tests/deploy/check-helm -->", "<!-- end of values -->"


def leaves(value, path=""):
    if isinstance(value, dict) and value and not path.endswith("labels"):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


def table(values_text):
    said = comments(values_text)
    rows = ["| value | what | default |", "|---|---|---|"]
    for path, value in leaves(yaml.safe_load(values_text)):
        if path not in said:
            raise SystemExit(f"values.yaml: {path} has no comment")
        what = said[path].replace("|", "\\|")
        rows.append(f"| `{path}` | {what} | `{json.dumps(value, ensure_ascii=False)}` |")
    return "\n".join(rows), len(rows) - 2


def page(text, values_text):
    """The page as it must be, and how many values it has."""
    if BEGIN not in text or END not in text:
        raise SystemExit(f"helm/fanfare/README.md has no lines {BEGIN} and {END}")
    rows, count = table(values_text)
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    return f"{head}{BEGIN}\n\n{rows}\n\n{END}{tail}", count
