"""Looks for secrets in all that a run of tests wrote.

In: the folder that such a run left (`FANFARE_TEST_KEEP`, `scripts/scan-secrets`). Out: how many files and bytes
were read and how many secrets looked for, in which forms, and each hit. Exit code 1 at a hit, and where there
is nothing to look at: no file, no node at the level `trace`, no secret, or a planted one that is not found.

A secret is looked for as it is, percent-encoded, in JSON, in hexadecimal, and in base64 at each of the three
places where it can begin; of a token its payload and its signature; of a private key each line. Besides, what
has the form of a token or of a private key is a hit wherever it comes from.
"""

import base64
import json
import os
import re
import secrets as random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

# Shorter ones are found in innocent words. They are counted.
SHORTEST = 8
# A part of a token that is shorter says nothing: `{}` is one.
SHORTEST_PART = 16
# What prints a secret because it is asked to: the words after the time and the process in the name of a file.
PRINTS = re.compile(r"\d+-\d+-(token|api-key)(-[a-z-]+)?\.out$")
# Of what they print, which may be a help too.
PRINTED = re.compile(r"(?<![^\s\"])[A-Za-z0-9_][A-Za-z0-9_.-]{31,}(?![^\s\"])")
# What is known to everybody, as each node of `--dev` says.
PUBLIC = {"dev", "development"}
SHAPES = {
    "a token": r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
}
# At most so many hits are printed one by one.
PRINTED_MAX = 50


def main():
    folder = Path(sys.argv[1])
    planted = plant(folder)
    files = sorted(path for path in (folder / "written").iterdir() if path.is_file())
    excepted = [path for path in files if PRINTS.search(path.name)]
    files = [path for path in files if path not in excepted]
    values, short = gathered(folder, excepted)
    needles = {}
    for kind, value in sorted(values):
        for form, needle in forms(kind, value):
            needles.setdefault(needle, (kind, form, value))
    for form, needle in forms("secret", planted):
        needles[needle] = ("planted", form, planted)
    hits, found = look(folder, files, needles)
    size = sum(path.stat().st_size for path in files)
    nodes = [path for path in files if path.name.endswith("-serve-trace.err")]
    print(f"secrets: {len(files)} files, {size} bytes, {len(nodes)} nodes at trace, {len(excepted)} files excepted, "
          f"{len(values)} secrets in {len(needles)} forms, {short} too short, {len(hits)} hits")
    faults = [f"{where}: {what}" for where, what in hits]
    faults += [f"the planted secret was not found: {form}" for form, needle in forms("secret", planted)
               if needle not in found]
    if not values:
        faults.append("no secret was kept")
    if not any(is_fine(path) for path in nodes):
        faults.append("no node at the level trace has written a line finer than info")
    for fault in faults[:PRINTED_MAX]:
        print(f"  {fault}")
    if len(faults) > PRINTED_MAX:
        print(f"  and {len(faults) - PRINTED_MAX} more")
    for what, count in Counter(what for _, what in hits).most_common(20):
        print(f"  {count} of {what}")
    sys.exit(1 if faults else 0)


def plant(folder):
    """Lets the real program write a secret in all its forms: it tells of a command that it does not know."""
    planted = "planted+secret " + random.token_hex(12)
    program = folder / "fanfare"
    if not program.exists():
        sys.exit(f"secrets: nothing was kept in {folder}: no test has started the program")
    all_forms = " | ".join(needle for _, needle in forms("secret", planted))
    # What is captured ends with the copies.
    subprocess.run([program, all_forms], capture_output=True, check=False)
    return planted


def gathered(folder, excepted):
    """All secrets, and how many are too short to be looked for."""
    values, short = set(), set()

    def add(kind, value, shortest=SHORTEST):
        if value in PUBLIC or not value.strip():
            return
        (values if len(value) >= shortest else short).add((kind, value))

    for path in folder.glob("secrets-*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            for kind, value in parts(told["kind"], told["value"]):
                add(kind, value, SHORTEST_PART if kind == "token" else SHORTEST)
    for path in excepted:
        for word in PRINTED.findall(path.read_text(encoding="utf-8", errors="replace")):
            for kind, value in parts("secret", word):
                add(kind, value, SHORTEST_PART)
    return values, len(short)


def parts(kind, value):
    """What of a secret is one by itself."""
    if kind == "url":
        try:
            address = urlsplit(value)
            login, query = address.password, address.query
        except ValueError:
            return
        if login:
            yield "secret", login
            yield "secret", unquote(login)
        for pair in query.split("&"):
            name, _, given = pair.partition("=")
            if name == "token":
                yield from parts("token", unquote(given))
            elif name == "password":
                yield "secret", unquote(given)
    elif kind == "header":
        # `NAME=VALUE` of telemetry, percent-encoded; or a value as it is.
        value = unquote(value.split("=", 1)[1]) if re.match(r"[\w-]+=", value) else value
        yield "secret", value
        yield from (("secret", word) for word in value.split() if word.lower() != "bearer")
    elif kind == "pem":
        body = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", value, re.S)
        yield from (("key", line.strip()) for text in body for line in text.splitlines() if len(line) >= 32)
    elif kind == "token" or value.startswith("eyJ"):
        yield from (("token", part) for part in value.split(".")[1:])
    else:
        yield "secret", value
        if value.startswith("whsec_"):
            yield "secret", value.removeprefix("whsec_")


def forms(kind, value):
    """Pairs of a form's name and the text to look for."""
    yield "as it is", value
    if kind != "secret":
        return
    raw = value.encode()
    others = {
        "percent-encoded": quote(value, safe=""),
        "in JSON": json.dumps(value)[1:-1],
        "in hexadecimal": raw.hex(),
        "in HEXADECIMAL": raw.hex().upper(),
    }
    for before in range(3):
        # Whole groups of three bytes only: what stands before and behind changes the letters at the ends.
        coded = base64.b64encode(b"\0" * before + raw).decode()
        begin, end = (0, 2, 3)[before], (before + len(raw)) // 3 * 4
        others[f"in base64, {before}"] = coded[begin:end]
        others[f"in base64url, {before}"] = coded[begin:end].replace("+", "-").replace("/", "_")
    for form, needle in others.items():
        if needle != value and len(needle) >= SHORTEST:
            yield form, needle


def look(folder, files, needles):
    """Hits as pairs of a place and what is there, and the needles that were found."""
    hits, found = [], set()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder) as patterns:
        patterns.write("".join(needle + "\n" for needle in needles if "\n" not in needle))
        patterns.flush()
        for path, line, text in grep(files, "-F", "-f", patterns.name):
            found.add(text)
            kind, form, value = needles[text]
            if kind != "planted":
                hits.append((f"{path}:{line}", f"a {kind} {form}: {value[:12]}…"))
    for what, shape in SHAPES.items():
        hits += [(f"{path}:{line}", f"what looks like {what}: {text[:24]}…")
                 for path, line, text in grep(files, "-E", "-e", shape)]
    return hits, found


def grep(files, *how):
    """Each match as file, line and text. Its algorithm takes as long for 10,000 texts as for one."""
    for begin in range(0, len(files), 500):
        some = [str(path) for path in files[begin:begin + 500]]
        command = ["grep", "--text", "--only-matching", "--line-number", "--with-filename", "--null", *how, "--"]
        ran = subprocess.run([*command, *some], stdout=subprocess.PIPE, check=False,
                             env={**os.environ, "LC_ALL": "C"})
        if ran.returncode > 1:
            sys.exit("secrets: grep failed")
        for match in ran.stdout.decode("utf-8", "replace").splitlines():
            path, rest = match.split("\0", 1)
            line, text = rest.split(":", 1)
            yield Path(path).name, line, text


def is_fine(path):
    with path.open("rb") as file:
        return any(level in line for line in file for level in (b'"DEBUG"', b'"TRACE"', b" DEBUG ", b" TRACE "))


if __name__ == "__main__":
    main()
