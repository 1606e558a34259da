"""Starts the program in a run of tests whose output is kept, and keeps what it writes.

In: the folder of the run, the program, and its arguments, as a test gives them. Out: the program in the place
of this process, `serve` at the log level `trace` where the test does not keep its own; below the folder a copy of all that
it writes, and the secrets that its arguments, its environment and its configuration hold.

Without a program (an empty text) only the secrets are kept: of a configuration that is about to be read again.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

# Keys of the configuration that hold a secret, or a list of secrets. `keys` is a table where it is of tokens.
NAMES = {"secret", "secrets", "hmac_secret", "keys"}
# Those that name a file with secrets, one a line, or with a private key.
FILES = {"secret_file", "secrets_file", "hmac_secret_file", "keys_file", "password_file", "tls_key_file"}
# Those that name a variable.
VARIABLES = {"secret_env", "secrets_env"}
# What holds a secret in the environment and on the command line.
SECRET_VARIABLE = re.compile(r"(?:FANFARE|OTEL)_\w*(?:SECRET|KEY|KEYS|TOKEN|HEADERS|URL|SHARDS)$")
FILE_VARIABLE = re.compile(r"FANFARE_\w*(?:SECRET|KEYS?|PASSWORD)_FILE$")
SECRET_FLAGS = {"--secret", "--token", "--api-key", "--redis", "--url", "--api-url"}
FILE_FLAGS = {"--secret-file", "--key"}
# A text in the file that is no TOML, which a node is given too.
LOOSE = re.compile(r"""(?<![a-z_])(?:hmac_secret|secrets?|keys)\s*=\s*\[?\s*["']([^"'\n]+)["']""")


def main():
    folder, program, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    found = list(secrets(arguments, os.environ))
    if found:
        lines = "".join(json.dumps({"kind": kind, "value": value}) + "\n" for kind, value in found)
        with open(folder / f"secrets-given-{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
            file.write(lines)
    if program:
        start(folder, program, arguments)


def start(folder, program, arguments):
    """Puts the program in the place of this process, and a `tee` behind each of its outputs."""
    words = [word for word in arguments[:2] if re.fullmatch(r"[a-z][a-z-]*", word)] or ["none"]
    keeps_level = os.environ.pop("KEPT_WITH_OWN_LEVEL", None)
    if words[0] == "serve" and keeps_level is None:
        level = os.environ.setdefault("FANFARE_LOG__LEVEL", "trace")
        words = ["serve", "trace" if level == "trace" else "own"]
    name = f"{time.time_ns()}-{os.getpid()}-{'-'.join(words)}"
    for number, end in ((1, "out"), (2, "err")):
        copy = ["tee", str(folder / "written" / f"{name}.{end}")]
        tee = subprocess.Popen(copy, stdin=subprocess.PIPE, stdout=number, stderr=subprocess.DEVNULL)
        os.dup2(tee.stdin.fileno(), number)
    # A variable that the program does not know is a fault to it.
    os.environ.pop("FANFARE_TEST_KEEP", None)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(program, [program, *arguments])


def secrets(arguments, environment):
    """Pairs of a kind (`secret`, `token`, `url`, `header`, `pem`) and a value."""
    config = environment.get("FANFARE_CONFIG")
    flags = iter(arguments)
    for flag in flags:
        name, equals, value = flag.partition("=")
        if name not in SECRET_FLAGS | FILE_FLAGS | {"--config", "--secret-env"}:
            continue
        value = value if equals else next(flags, "")
        if name == "--config":
            config = value
        elif name == "--secret-env":
            yield "secret", environment.get(value, "")
        elif name in FILE_FLAGS:
            yield from of_file(Path(value))
        else:
            yield kind_of(name), value
    for name, value in environment.items():
        if name.startswith("FANFARE_TEST_"):
            continue
        if FILE_VARIABLE.match(name):
            yield from of_file(Path(value))
        elif SECRET_VARIABLE.match(name):
            for part in value.split(",") if "REDIS" not in name else [value]:
                yield kind_of(name), part
    if config:
        yield from of_config(Path(config), environment)


def kind_of(name):
    for kind in ("token", "url", "header"):
        if kind in name.lower():
            return kind
    return "url" if re.search("redis|shards", name.lower()) else "secret"


def of_config(path, environment):
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return
    try:
        yield from of_table(tomllib.loads(text), path.parent, environment)
    except tomllib.TOMLDecodeError:
        for value in LOOSE.findall(text):
            yield "secret", value


def of_table(table, folder, environment):
    for key, value in table.items():
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        if key.endswith("headers"):
            values = value.values() if isinstance(value, dict) else texts
            yield from (("header", text) for text in values if isinstance(text, str))
        elif key in NAMES:
            yield from (("secret", text) for text in texts)
        elif key in FILES:
            for text in texts:
                yield from of_file(folder / text)
        elif key in VARIABLES:
            yield from (("secret", part) for text in texts for part in environment.get(text, "").split(","))
        elif key in ("url", "shards"):
            yield from (("url", text) for text in texts)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from of_table(inner, folder, environment)


def of_file(path):
    try:
        text = path.read_bytes()[:1 << 20].decode("utf-8", "replace")
    except OSError:
        return
    if "PRIVATE KEY" in text:
        yield "pem", text
    elif "BEGIN" not in text:
        for line in text.splitlines():
            if line and not line.startswith("#"):
                yield "secret", line


if __name__ == "__main__":
    main()
