"""The system calls of a real node against the filter of a unit.

    calls.py BINARY FOLDER FILTER

A node is run under strace over a Redis, with a session and a publication, and stopped. A call that the
filter refuses is a fault, but for those that only ask for more than there is.
"""

import asyncio
import os
import re
import subprocess
import sys

from rig import Failed, Node, Redis, until
from sessions import Session

# Raising the limit of open files: a unit sets it, and the node goes on with what it has.
SPARED = {"prlimit64", "setrlimit"}


def members(group):
    """The calls of a group such as @system-service, with those of the groups in it."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    calls = set()
    for line in listed.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= members(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def allowed(words):
    """What a unit allows: groups are added in their order, and ~ takes them away."""
    calls, is_off = members("@default"), False
    for word in words.split():
        is_off = word.startswith("~") or (is_off and not word.startswith("@system"))
        group = members(word.lstrip("~"))
        calls = calls - group if is_off else calls | group
    return calls


async def serve_one(node):
    session = Session(f"ws://{node.address}", "alice", "news", False)
    try:
        while session.node is None:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(node.publish, "news", 1)
        while session.seen < 1:
            await asyncio.sleep(0.05)
    finally:
        await session.stop()


def main():
    binary, folder, words = sys.argv[1:4]
    trace = os.path.join(folder, "trace")
    wrapper = os.path.join(folder, "traced")
    with open(wrapper, "w") as script:
        script.write(f'#!/bin/sh\nexec strace -f -qq -o {trace} -- {binary} "$@"\n')
    os.chmod(wrapper, 0o755)
    try:
        redis = Redis(folder)
        node = Node(wrapper, folder, "traced-node", redis.url)
        asyncio.run(asyncio.wait_for(serve_one(node), 60))
        # strace hands SIGTERM on to nobody: the node itself is asked.
        child = until("a process of the node", lambda: subprocess.run(
            ["pgrep", "-P", str(node.process.pid)], capture_output=True, text=True).stdout.split())[0]
        subprocess.run(["kill", "-TERM", child], check=True)
        code = node.process.wait(60)
    except (Failed, TimeoutError) as failed:
        print(f"check-systemd: a node under strace: {failed}", file=sys.stderr)
        return 1
    calls = set(re.findall(r"^\d+\s+(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed)", open(trace).read(), re.MULTILINE))
    refused = sorted(calls - allowed(words) - SPARED)
    if refused or code != 0 or len(calls) < 30:
        print(f"check-systemd: of {len(calls)} calls the filter refuses {refused}; the node ended with {code}", file=sys.stderr)
        return 1
    print(f"{len(calls)} kinds of system calls of a node, all of them allowed by the filter")
    return 0


if __name__ == "__main__":
    sys.exit(main())
