"""The longest stop of a node: SIGTERM with as many sessions as it may have, of which none answers.

    silent.py BINARY FOLDER [SESSIONS]

Every session has a user of its own and its welcome. Then nobody reads and nobody writes: no answer to
`drain`, to a ping or to a close frame comes, and no socket is closed. The node has its defaults apart
from `server.connections_max`. It is stopped twice: over a Redis that answers, and over one that does not.
Ends with 1 where the exit is later than `config show` says by `stop.longest_s`, where the code is not 0,
or where a session was not told `drain` and closed with 4100.
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

from rig import Failed, Gateway, Process, Redis, free_port, kill_all, until

SECRET = "for-checks-only-for-checks-only-for-checks"
# Up to so many the longest stop is that of the drain's window; docs/deployment.md says so.
SESSIONS_MAX, SESSIONS_MIN = 15_000, 5_000
# Of files, for what is no session, on either side.
RESERVE = 1_000
# Handshakes at once: what a listener keeps waiting is bounded.
BATCH = 500
# Beside warnings, what is told of the way out.
STEPS = ("drain_started", "node_stopped")
HANDSHAKE = (
    "GET /v1/connect HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: fanfare.v1.json\r\nAuthorization: Bearer {token}\r\n\r\n"
)
CLOSE_4100 = (4100).to_bytes(2, "big")


def token(user):
    """A JWT by HS256, for an hour."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": user, "exp": int(time.time()) + 3600}
    signed = b".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    mac = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(mac)).decode()


class Silent(Process, Gateway):
    """A node with its defaults that takes so many sessions."""

    def __init__(self, binary, folder, redis_url, count):
        self.port, api_port = free_port(), free_port()
        self.address, self.api = f"127.0.0.1:{self.port}", f"http://127.0.0.1:{api_port}"
        settings = {
            "FANFARE_SERVER__LISTEN": self.address, "FANFARE_API__LISTEN": f"127.0.0.1:{api_port}",
            "FANFARE_SERVER__NODE_ID": "silent", "FANFARE_SERVER__CONNECTIONS_MAX": str(count),
            "FANFARE_AUTH__HMAC_SECRET": SECRET, "FANFARE_API__KEYS": SECRET,
            "FANFARE_REDIS__URL": redis_url, "FANFARE_LOG__FORMAT": "json",
        }
        shown = subprocess.run([binary, "config", "show"], env={**os.environ, **settings}, capture_output=True, text=True)
        values = {found["key"]: found["value"] for found in map(json.loads, shown.stdout.splitlines())}
        if "stop.longest_s" not in values:
            raise Failed(f"config show has no stop.longest_s: {shown.stderr}")
        self.longest_s, self.values = values["stop.longest_s"], values
        super().__init__(folder, "node", [binary, "serve"], settings)
        self.until("is ready", lambda: self.health("ready") == 200)

    def steps(self, since):
        """What it logged of its end, each event once, with the seconds since then."""
        seen = {}
        for line in self.said().splitlines():
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("level") in ("WARN", "ERROR") or told.get("event") in STEPS:
                at = datetime.datetime.fromisoformat(told["timestamp"]).timestamp() - since
                if at >= 0:
                    seen.setdefault(told["event"], at)
        return ", ".join(f"{event} at {at:.1f}" for event, at in seen.items())


def enter(port, numbers):
    """Opens sessions, to their welcomes."""
    opened = []
    for number in numbers:
        one = socket.create_connection(("127.0.0.1", port), 10)
        one.sendall(HANDSHAKE.format(token=token(f"user-{number}")).encode())
        opened.append(one)
    for one in opened:
        got = b""
        while b'"welcome"' not in got:
            more = one.recv(4096)
            if not more:
                raise Failed(f"a session was not let in: {got!r}")
            got += more
    return opened


def told(one):
    """Whether a session was told to go, and closed by the code of a leaving node."""
    one.settimeout(5)
    got = b""
    try:
        while more := one.recv(65536):
            got += more
    except OSError as fault:
        raise Failed(f"a session was not closed: {fault}, after {got[-100:]!r}") from None
    return b'"drain"' in got and CLOSE_4100 in got


def stopped(binary, folder, count, redis_answers):
    """One stop. What was seen."""
    redis = Redis(folder)
    node = Silent(binary, folder, redis.url, count)
    sessions = []
    began = time.monotonic()
    for first in range(0, count, BATCH):
        sessions += enter(node.port, range(first, min(first + BATCH, count)))
    entered_s = time.monotonic() - began
    until("all sessions are counted", lambda: node.sessions() == count)
    if not redis_answers:
        redis.process.send_signal(signal.SIGSTOP)
    since, began = time.time(), time.monotonic()
    try:
        code = node.stop(node.longest_s + 30)
    except subprocess.TimeoutExpired:
        raise Failed(f"it has not ended {node.longest_s + 30} s after SIGTERM: {node.steps(since)}") from None
    took_s = time.monotonic() - began
    if not redis_answers:
        redis.process.send_signal(signal.SIGCONT)
    steps = node.steps(since)
    if code != 0:
        raise Failed(f"it ended with {code} after {took_s:.1f} s: {steps}")
    if took_s > node.longest_s:
        raise Failed(f"it ended after {took_s:.1f} s, stop.longest_s is {node.longest_s}: {steps}")
    untold = sum(not told(one) for one in sessions)
    for one in sessions:
        one.close()
    if untold:
        raise Failed(f"{untold} of {count} sessions were not told to go and closed with 4100")
    # Who goes at once makes room for the next step; silent ones stay to the last.
    least_s = node.values["drain.window_ms"] * 3 / 4000
    if took_s < least_s:
        raise Failed(f"it ended after {took_s:.1f} s, before the {least_s:.1f} s in which sessions are told and may stay")
    return (f"Redis {'answers' if redis_answers else 'does not answer'}: {count} silent sessions (in within {entered_s:.0f} s), "
            f"exit 0 after {took_s:.1f} s, stop.longest_s is {node.longest_s}; {steps}")


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else min(SESSIONS_MAX, files - RESERVE)
    try:
        if count < SESSIONS_MIN or count + RESERVE > files:
            raise Failed(f"{count} sessions are not enough or too many: at least {SESSIONS_MIN}, and {files} files may be open "
                         f"(ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        for redis_answers in (True, False):
            own = folder / ("answers" if redis_answers else "silent")
            own.mkdir(parents=True)
            print(stopped(binary, own, count, redis_answers), flush=True)
            kill_all()
    except Failed as failed:
        print(f"check-stop: {failed}", file=sys.stderr)
        return 1
    finally:
        kill_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
