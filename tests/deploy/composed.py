"""Asks a cluster that was started by Compose what its user would.

    composed.py BINARY ENV_FILE PORT API_PORT PROJECT

Sessions with tokens come in through HAProxy and are dealt over three nodes; a publication by the API
reaches all of them; a node is killed, and nobody misses anything.
"""

import asyncio
import json
import os
import pathlib
import subprocess
import sys

from rig import Failed, http, until
from sessions import Session

BINARY, PORT, API_PORT, PROJECT = sys.argv[1], sys.argv[3], sys.argv[4], sys.argv[5]
SETTINGS = dict(line.split("=", 1) for line in pathlib.Path(sys.argv[2]).read_text().splitlines())
API = f"http://127.0.0.1:{API_PORT}"
TOPIC = "notification:release"
SESSIONS = 12
published = 0


def token(user):
    made = subprocess.run([BINARY, "token", "--user", user, "--secret-env", "SECRET"], capture_output=True, text=True,
                          env={**os.environ, "SECRET": SETTINGS["HMAC_SECRET"]}, check=True)
    return made.stdout.strip()


def nodes():
    status, body = http("GET", f"{API}/v1/nodes", key=SETTINGS["FANFARE_API_KEY"])
    return [node["node"] for node in json.loads(body)["nodes"]] if status == 200 else []


def publish():
    """The next number, by whichever node answers. It is published once, whatever is repeated."""
    global published
    number = published + 1
    body = {"topic": TOPIC, "data": number, "idempotency_key": f"n-{number}"}
    until("a publication is taken", lambda: http("POST", f"{API}/v1/publish", body, SETTINGS["FANFARE_API_KEY"])[0] == 200)
    published = number


async def when(what, ask, patience_s=60):
    for _ in range(patience_s * 20):
        if ask():
            return
        await asyncio.sleep(0.05)
    raise Failed(f"waited {patience_s} s in vain: {what}")


async def serve():
    sessions = [Session(f"ws://127.0.0.1:{PORT}", f"user-{n}", TOPIC, False, token(f"user-{n}")) for n in range(SESSIONS)]
    await when("all sessions are in", lambda: all(session.node for session in sessions))
    dealt = sorted(session.node for session in sessions)
    counts = [dealt.count(name) for name in ("node-1", "node-2", "node-3")]
    if min(counts) < 2:
        raise Failed(f"sessions are dealt as {counts}")
    for _ in range(10):
        await asyncio.to_thread(publish)
    await when("messages come", lambda: all(session.seen == published for session in sessions))
    victim = subprocess.run(["podman", "ps", "--filter", "name=node-2", "--format", "{{.Names}}"],
                            capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["podman", "kill", victim], check=True, stdout=subprocess.DEVNULL)
    for _ in range(20):
        await asyncio.to_thread(publish)
    # A container that is killed is started again, so it may have some of them.
    await when("all sessions are back", lambda: all(session.node for session in sessions))
    await when("the last message comes", lambda: all(session.seen == published for session in sessions))
    faults = [fault for session in sessions for fault in session.faults]
    breaks = sum(session.breaks for session in sessions)
    await asyncio.gather(*(session.stop() for session in sessions))
    if faults or breaks < 1:
        raise Failed(f"{breaks} sessions were broken off, faults: {faults[:3]}")
    print(f"composed: 3 nodes behind HAProxy, {SESSIONS} sessions as {'/'.join(map(str, counts))}, {published} publications, "
          f"one node killed, {breaks} came back, each message once and in order")


def confined():
    """What runs is as confined as the file says."""
    listed = subprocess.run(["podman", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        found = json.loads(subprocess.run(["podman", "inspect", name], capture_output=True, text=True, check=True).stdout)[0]
        host = found["HostConfig"]
        if not host["ReadonlyRootfs"] or not host["Memory"] or found["EffectiveCaps"]:
            raise Failed(f"{name}: read-only {host['ReadonlyRootfs']}, memory {host['Memory']}, capabilities {found['EffectiveCaps']}")
    if len(listed) != 5:
        raise Failed(f"{len(listed)} containers run, not five: {listed}")
    print(f"composed: {len(listed)} containers, each read-only, without capabilities, with a limit of memory")


def main():
    try:
        until("three nodes are there", lambda: len(nodes()) == 3, 120)
        confined()
        asyncio.run(serve())
    except Failed as failed:
        print(f"check-compose: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
