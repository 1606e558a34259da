"""Runs the commands of docs/deployment.md as they stand there, over a Redis and a node.

    hosts_guide.py ROOT BINARY FOLDER

What is of the machine is put elsewhere: /etc/fanfare and /usr/local/bin lie in FOLDER, ports and the
address of Redis are those of this run. A line that needs what is not here (docker, systemctl, a build)
is left out; its beginning stands below, with what tries it instead. Ends with 1 where a command fails.
"""

import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import textwrap

from rig import Failed, Process, Redis, free_port, http, until

ROOT, BINARY, FOLDER = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
PAGE = (ROOT / "docs/deployment.md").read_text()
# Elsewhere: check-image, check-compose, check-systemd.
LEFT_OUT = ("docker ", "systemctl ", "scripts/dist", "pip install")
# A line may be of several, as in a loop.
LOOP = re.compile(r"^for .*?^done$", re.MULTILINE | re.DOTALL)


def blocks(language):
    """(heading, body) of each block, which may stand in a list."""
    heading = ""
    for found in re.finditer(r"^## ([^\n]+)$|^( *)```(\w+)\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL):
        heading = found[1] or heading
        if found[3] == language:
            yield heading, textwrap.dedent(found[4])


class Guide:
    """A machine as the page makes it, in a folder."""

    def __init__(self):
        self.redis = Redis(FOLDER)
        self.public, self.api = free_port(), free_port()
        for name in ("etc/fanfare", "etc/systemd/system", "bin", "target/dist"):
            (FOLDER / name).mkdir(parents=True)
        for name in ("examples", "scripts"):
            shutil.copytree(ROOT / name, FOLDER / name)
        for name in (".env", "secrets"):
            subprocess.run(["rm", "-rf", self.compose(name)], check=True)
        for place in ("target/dist", "bin"):
            shutil.copy(BINARY, FOLDER / place / "fanfare")
        self.ran, self.left_out, self.node = 0, 0, None

    def compose(self, name):
        return FOLDER / "examples/compose" / name

    def placed(self, text, redis):
        """With the places of this run."""
        for was, now in (
            ("/etc/fanfare", f"{FOLDER}/etc/fanfare"), ("/etc/systemd", f"{FOLDER}/etc/systemd"),
            ("/usr/local/bin", f"{FOLDER}/bin"), ("redis.internal:6379", f"127.0.0.1:{self.redis.port}"),
            ("127.0.0.1:8081", f"127.0.0.1:{self.api}"), ("127.0.0.1:6380", f"127.0.0.1:{redis.port}"),
        ):
            text = text.replace(was, now)
        return text

    def run(self, heading, body, redis, folder=FOLDER, more=None):
        """The lines of a block in one shell, but those that are left out."""
        lines = LOOP.sub("", body).replace("\\\n", " ").splitlines()
        kept = [line for line in lines if line.strip() and not line.startswith(LEFT_OUT)]
        self.left_out += len(lines) - len(kept)
        self.ran += len(kept)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FANFARE_")}
        environment |= {"PATH": f"{FOLDER}/bin:{environment['PATH']}", "FANFARE_API_URL": f"http://127.0.0.1:{self.api}",
                        "FANFARE_URL": f"ws://127.0.0.1:{self.public}/v1/connect", **(more or {})}
        said = subprocess.run(["bash", "-euo", "pipefail", "-c", self.placed("\n".join(kept), redis)], cwd=folder,
                              env=environment, capture_output=True, text=True, check=False)
        if said.returncode != 0:
            raise Failed(f"docs/deployment.md, {heading}: ended with {said.returncode}: {said.stderr[-2000:]}\n" + "\n".join(kept))
        return said.stdout

    def serve(self, name, variables):
        """A node with the variables of the page, on ports of this run."""
        ports = {"FANFARE_SERVER__LISTEN": f"127.0.0.1:{self.public}", "FANFARE_API__LISTEN": f"127.0.0.1:{self.api}",
                 "FANFARE_METRICS__LISTEN": f"127.0.0.1:{free_port()}", "FANFARE_DRAIN__DELAY_MS": "0"}
        self.node = Process(FOLDER, name, [FOLDER / "bin/fanfare", "serve"], {**variables, **ports})
        self.node.until("is ready", lambda: http("GET", f"http://127.0.0.1:{self.api}/health/ready")[0] == 200)

    def systemd(self):
        """The layout of the unit: its files, its variables, and the node as it would start it."""
        env_file = FOLDER / "etc/fanfare/fanfare.env"
        for heading, body in blocks("text"):
            if heading == "systemd":
                env_file.write_text(self.placed(body, self.redis).replace("…", secrets.token_hex(24)))
        variables = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        return {**variables, "FANFARE_CONFIG": str(FOLDER / "etc/fanfare/fanfare.toml")}

    def composed(self):
        """What Compose would start: a Redis with the password, and a node with the variables of the file."""
        redis = Redis(FOLDER, "valkey", ["--requirepass", self.compose("secrets/redis-password").read_text().strip()])
        made = dict(line.split("=", 1) for line in self.compose(".env").read_text().splitlines())
        self.serve("node-composed", {
            "FANFARE_CONFIG": str(FOLDER / "examples/fanfare.toml"), "FANFARE_ENV": "production",
            "FANFARE_REDIS__URL": redis.url, "FANFARE_REDIS__PASSWORD_FILE": str(self.compose("secrets/redis-password")),
            "FANFARE_AUTH__HMAC_SECRET": made["HMAC_SECRET"], "FANFARE_API__KEYS": made["FANFARE_API_KEY"]})
        return redis


def stops_in_time():
    """`docker run` waits as long as the unit, which has as many files. A check adds that up."""
    unit = (ROOT / "examples/systemd/fanfare.service").read_text()
    waits, files = (int(re.search(rf"^{key}=(\d+)", unit, re.MULTILINE)[1]) for key in ("TimeoutStopSec", "LimitNOFILE"))
    found = re.search(r"--ulimit nofile=(\d+) --stop-timeout (\d+)", PAGE)
    if not found or int(found[1]) > files or int(found[2]) < waits:
        raise Failed(f"docs/deployment.md: docker run waits {found and found[2]} s for a stop, the unit {waits} s")


def walk(guide):
    """All blocks, in the order of the page."""
    later = []
    redis, compose = guide.redis, ""
    for heading, body in blocks("sh"):
        if heading == "Compose":
            if "docker compose up --detach --wait\n" in body:
                guide.run(heading, body, redis)
                redis = guide.composed()
            else:
                # One shell for the rest: what a block exports the next one uses.
                compose += body
        elif heading == "systemd":
            if "systemctl enable" in body:
                guide.serve("node-systemd", guide.systemd())
            elif "fanfare.env;" in body:
                guide.systemd()
            guide.run(heading, body, redis)
            if guide.node:
                guide.node.stop()
        elif heading == "Backup and restore":
            later.append((heading, body))
        else:
            guide.run(heading, body, redis)
    said = guide.run("Compose", compose, redis, guide.compose(""))
    if "wrote ../../fanfare-compose.tar" not in said:
        raise Failed(f"docs/deployment.md, Compose: nothing was saved: {said}")
    guide.node.kill()
    return later


def saved_and_restored(guide, found):
    """The loss between the backup and the restore of the page is of this check."""
    variables = guide.systemd()
    guide.serve("node-before", variables)
    key = variables["FANFARE_API__KEYS"]
    status, _ = http("POST", f"http://127.0.0.1:{guide.api}/v1/publish", {"topic": "notification:x", "data": 1}, key)
    if status != 200:
        raise Failed(f"a publication was answered {status}")
    said = ""
    for heading, body in found:
        if "scripts/restore" in body and "--check" not in body:
            guide.node.kill()
            subprocess.run(["redis-cli", "-p", str(guide.redis.port), "FLUSHALL"], check=True, stdout=subprocess.DEVNULL)
        said += guide.run(heading, body, guide.redis)
    if "restored Redis: nodes may start" not in said:
        raise Failed(f"nothing was restored: {said}")
    guide.serve("node-after", variables)
    until("what was published is there", lambda: b'"data":1' in http(
        "GET", f"http://127.0.0.1:{guide.api}/v1/topics/notification:x/history", key=key)[1].replace(b" ", b""))


def main():
    try:
        stops_in_time()
        guide = Guide()
        saved_and_restored(guide, walk(guide))
    except Failed as failed:
        print(f"check-guide: {failed}", file=sys.stderr)
        return 1
    print(f"{guide.ran} lines of docs/deployment.md were run, {guide.left_out} are tried by other checks")
    return 0 if guide.ran > 20 else 1


if __name__ == "__main__":
    sys.exit(main())
