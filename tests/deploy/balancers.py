"""The examples of balancers before three real nodes over a real Redis.

    balancers.py ROOT BINARY FOLDER [NAME]...

Each balancer is tried twice: by least connections, and with `?route=KEY`. Sixty sessions connect,
receive, come back after a node was killed, and after another one was drained, while 20 publications
a second go on. Prints one row for each try; ends with 1 where a session missed something, got it
twice or out of order, where a node has too many, or where a new session was refused during a drain.
"""

import asyncio
import collections
import concurrent.futures
import functools
import pathlib
import shutil
import sys
import time

from rig import PATIENCE_S, Failed, Node, Process, Redis, free_port, http, kill_all
from sessions import Session

SESSIONS = 60
NODES = 3
PUBLICATIONS_PER_S = 20
# Longer than the checks of the balancers need, as the examples say.
DRAIN = {"FANFARE_DRAIN__DELAY_MS": "6000", "FANFARE_DRAIN__WINDOW_MS": "4000"}
# The bound of 125 %, and one session that is on its way.
BOUND_MAX = 26
# With fewest connections, where all come at once and Envoy compares four by chance.
FEWEST = range(12, 31)


def placed(text, addresses, public):
    """An example with the addresses and the port of this run in the place of its own."""
    for number, address in enumerate(addresses, start=1):
        host, port = address.split(":")
        text = text.replace(f"10.0.0.1{number}:8080", address)
        text = text.replace(f"address: 10.0.0.1{number}, port_value: 8080", f"address: {host}, port_value: {port}")
    text = text.replace("bind :8080", f"bind 127.0.0.1:{public}")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{public};")
    text = text.replace("address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {public}")
    text = text.replace("pid /run/nginx.pid;", "pid nginx.pid;")
    # Or Envoy holds up each close for a second, and few new sessions are tried in the time of a drain.
    text = text.replace("codec_type: AUTO", "codec_type: AUTO\n                delayed_close_timeout: 0s")
    # Many machines on which this runs allow fewer open files.
    text = text.replace("maxconn 200000", "maxconn 5000")
    text = text.replace("worker_rlimit_nofile 131072;", "").replace("worker_connections 65536;", "worker_connections 10000;")
    if "10.0.0.1" in text or f"{public}" not in text:
        raise Failed("an example names other addresses than 10.0.0.11 to 13 and port 8080")
    return text


FILES = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf", "envoy": "envoy.yaml"}


def command(name, file):
    """How a balancer is started before everything else, in the foreground."""
    if name == "haproxy":
        return ["haproxy", "-db", "-f", str(file)]
    if name == "nginx":
        return ["nginx", "-p", str(file.parent), "-c", str(file), "-g", "daemon off;"]
    return ["envoy", "-c", str(file), "--disable-hot-restart", "--concurrency", "2", "-l", "warn",
            "--file-flush-interval-msec", "200"]


def processes(binary, folder):
    """Three nodes over a Redis."""
    redis = Redis(folder)
    more = {**DRAIN, "FANFARE_REBALANCE__ENABLED": "false"}
    return [Node(binary, folder, f"node-{n}", redis.url, more) for n in range(1, NODES + 1)]


class Stage:
    """Three nodes, a balancer, and what is published meanwhile. What `start` gives are the nodes."""

    def __init__(self, root, folder, name, by_key, start):
        self.name, self.by_key, self.published = name, by_key, 0
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.nodes = start(folder)
        public = free_port()
        text = (root / "examples/balancers" / FILES[name]).read_text()
        file = folder / FILES[name]
        file.write_text(placed(text, [node.address for node in self.nodes], public))
        self.address = f"127.0.0.1:{public}"
        self.balancer = Process(folder, name, command(name, file))
        self.balancer.until("leads to nodes", lambda: self.leads_to_all_nodes())

    def leads_to_all_nodes(self):
        ready = f"http://{self.address}/health/ready"
        return all(http("GET", f"{ready}?route={n}")[0] == http("GET", ready)[0] == 200 for n in range(20))

    def open(self, count=SESSIONS):
        url = f"ws://{self.address}"
        return [Session(url, f"user-{n}", "news", self.by_key) for n in range(count)]

    async def publishing(self):
        """Publishes by the first node, which nobody ends, until it is cancelled."""
        while True:
            await self.publish_one()
            await asyncio.sleep(1 / PUBLICATIONS_PER_S)

    async def publish_one(self):
        number = self.published + 1
        if not await asyncio.to_thread(self.nodes[0].publish, "news", number):
            raise Failed(f"{number} was not published")
        self.published = number


async def when(what, ask, patience_s=PATIENCE_S):
    """As `until`, for what sessions come to."""
    deadline = time.monotonic() + patience_s
    while not ask():
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience_s} s in vain: {what}")
        await asyncio.sleep(0.02)


async def all_are_on(sessions, nodes, what):
    await when(what, lambda: all(session.node in nodes for session in sessions))


def dealt(sessions):
    """How many sessions each node has, as 20/20/20."""
    counts = collections.Counter(session.node for session in sessions)
    return [counts.get(f"node-{n}", 0) for n in range(1, NODES + 1)]


async def probe_door(stage, answers):
    """Opens a session after the other, ten a second, and notes what each is answered.

    One that a node took at the moment at which it begins to leave is sent away before its welcome, and
    comes back: it was broken off once.
    """
    while True:
        session = Session(f"ws://{stage.address}", "probe", "probe", stage.by_key)
        deadline = time.monotonic() + 5
        while session.node is None and not session.refused and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        is_in = session.node is not None and session.breaks <= 1
        answers.append("in" if is_in else (session.refused or ["broken off"])[0])
        await session.stop()
        await asyncio.sleep(0.1)


async def lose(stage, sessions):
    """Kills the second node. How long until everybody is elsewhere."""
    began = time.monotonic()
    stage.nodes[1].kill()
    await when("the loss is felt", lambda: all(s.node != "node-2" for s in sessions))
    await all_are_on(sessions, {"node-1", "node-3"}, "all sessions are back after the loss of a node")
    return time.monotonic() - began


async def drain(stage, sessions):
    """Starts the second node again and drains the third. What new sessions were answered."""
    stage.nodes[1] = await asyncio.to_thread(stage.nodes[1].again)
    # As long as a balancer needs to see it.
    await asyncio.sleep(5)
    answers = []
    probing = asyncio.create_task(probe_door(stage, answers))
    code = await asyncio.to_thread(stage.nodes[2].stop, 60)
    await all_are_on(sessions, {"node-1", "node-2"}, "all sessions are back after a drain")
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    if code != 0:
        raise Failed(f"the drained node ended with {code}")
    return collections.Counter(answers)


def judge_shares(stage, counts):
    """No node has too much: fewest first, or within the bound; nginx bounds no keys."""
    least, most = FEWEST.start, FEWEST.stop - 1
    if stage.by_key:
        least, most = 1, SESSIONS if stage.name == "nginx" else BOUND_MAX
    if max(counts) > most or min(counts) < least:
        raise Failed(f"dealt as {counts}: at least {least} and at most {most} are right")


async def keeps(stage, before):
    """How many of the keys come to the same node again."""
    again = stage.open()
    await all_are_on(again, {"node-1", "node-2", "node-3"}, "sessions with the same keys")
    same = sum(node == session.node for node, session in zip(before, again, strict=True))
    await asyncio.gather(*(session.stop() for session in again))
    return same


async def tried(stage):
    """One try. Its row."""
    sessions = stage.open()
    await all_are_on(sessions, {"node-1", "node-2", "node-3"}, "all sessions are in")
    counts = dealt(sessions)
    judge_shares(stage, counts)
    same = "-"
    if stage.by_key:
        before = [session.node for session in sessions]
        await asyncio.gather(*(session.stop() for session in sessions))
        await when("sessions have left", lambda: sum(n.sessions() for n in stage.nodes) == 0)
        same = await keeps(stage, before)
        if same < SESSIONS * 0.8:
            raise Failed(f"{same} of {SESSIONS} keys come to the same node again")
        await when("sessions have left", lambda: sum(n.sessions() for n in stage.nodes) == 0)
        sessions = stage.open()
        await all_are_on(sessions, {"node-1", "node-2", "node-3"}, "all sessions are in again")
    publishing = asyncio.create_task(stage.publishing())
    await when("messages come", lambda: all(session.seen >= 20 for session in sessions))
    lost_s = await lose(stage, sessions)
    after_loss = dealt(sessions)
    answers = await drain(stage, sessions)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    await when("the last message comes", lambda: all(s.seen >= stage.published for s in sessions))
    faults = [f"{s.user}: {fault}" for s in sessions for fault in s.faults]
    drains = sum(session.drains for session in sessions)
    refused = sum(len(session.refused) for session in sessions)
    await asyncio.gather(*(session.stop() for session in sessions))
    if faults:
        raise Failed(f"{len(faults)} faults, first {faults[0]}")
    if drains == 0:
        raise Failed("no session was told to go")
    turned_away = sum(answers.values()) - answers["in"]
    if answers["in"] < 20 or turned_away:
        raise Failed(f"new sessions during a drain were answered {dict(answers)}")
    return (f"{'/'.join(map(str, counts))} | {same} | {lost_s:.1f} s | {'/'.join(map(str, after_loss))} | "
            f"{answers['in']} in, {turned_away} turned away | {refused} | {stage.published}, each once, in order")


def both_ways(root, binary, folder, name):
    """The rows of one balancer."""
    rows = []
    for by_key in (False, True):
        kind = "key" if by_key else "fewest"
        try:
            stage = Stage(root, folder / f"{name}-{kind}", name, by_key, functools.partial(processes, binary))
            rows.append(f"{name} | {kind} | {asyncio.run(tried(stage))}")
        except Failed as failed:
            raise Failed(f"{name}, by {kind}: {failed}") from None
        finally:
            kill_all()
    return rows


def main():
    root, binary, folder = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    names = sys.argv[4:] or list(FILES)
    print("balancer | by | sessions a node | same node again | back after a loss | then | "
          "new during a drain | 503 seen | published", flush=True)
    # Side by side, because each mostly waits.
    with concurrent.futures.ProcessPoolExecutor(len(names)) as pool:
        tries = [pool.submit(both_ways, root, binary, folder, name) for name in names]
        try:
            for each in tries:
                print("\n".join(each.result()), flush=True)
        except Failed as failed:
            print(f"check-balancers: {failed}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
