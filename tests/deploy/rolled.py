"""An upgrade under load: three nodes of one program are rolled to another one behind a balancer.

    rolled.py ROOT BEFORE AFTER FOLDER BALANCER [SESSIONS]

One node after the other is asked to leave, waited for, and started again as the other program. All the
while 100 publications a second go to 100 topics. Ends with 1 where a session missed something, got it
twice or out of order, where one did not come back, or where more than twice the planned number came
back within any second.
"""

import asyncio
import itertools
import pathlib
import sys
import time

import balancers
from rig import Failed, kill_all
from sessions import Session

TOPICS = 100
PUBLICATIONS_PER_S = 100
DELAY_S, WINDOW_S = 4, 16
DRAIN = {"FANFARE_DRAIN__DELAY_MS": str(DELAY_S * 1000), "FANFARE_DRAIN__WINDOW_MS": str(WINDOW_S * 1000)}


class Backend:
    """Publishes in turns to all topics, by any node that takes it."""

    def __init__(self, stage):
        self.stage, self.numbers = stage, dict.fromkeys(range(TOPICS), 0)

    def publish(self, topic):
        number = self.numbers[topic] + 1
        deadline = time.monotonic() + 30
        for node in itertools.cycle(self.stage.nodes):
            if node.publish(f"t:{topic}", number):
                break
            if time.monotonic() > deadline:
                raise Failed(f"no node took publication {number} of t:{topic}")
            time.sleep(0.02)
        self.numbers[topic] = number

    async def go_on(self):
        """At its pace, in four threads that have topics of their own."""

        async def some(first):
            for topic in itertools.cycle(range(first, TOPICS, 4)):
                began = time.monotonic()
                await asyncio.to_thread(self.publish, topic)
                await asyncio.sleep(max(0, 4 / PUBLICATIONS_PER_S - (time.monotonic() - began)))

        await asyncio.gather(*(some(first) for first in range(4)))


async def enter(stage, count):
    """All sessions, some tens at a time."""
    sessions = []
    for first in range(0, count, 50):
        sessions += [Session(f"ws://{stage.address}", f"user-{n}", f"t:{n % TOPICS}", False)
                     for n in range(first, min(first + 50, count))]
        await balancers.when("sessions come in", lambda: all(s.node for s in sessions), 60)
    return sessions


def most_in_a_second(sessions, since):
    """The fullest second of those who came back, wherever it begins."""
    times = sorted(t for session in sessions for t in session.welcomed if t > since)
    best, low = 0, 0
    for high, moment in enumerate(times):
        while moment - times[low] > 1:
            low += 1
        best = max(best, high - low + 1)
    return best, len(times)


async def roll(stage, sessions, after):
    """Each node in turn. What was planned and seen, node by node."""
    rows = []
    for at, node in enumerate(stage.nodes):
        began, had = time.monotonic(), node.sessions()
        code = await asyncio.to_thread(node.stop, 120)
        if code != 0:
            raise Failed(f"{node.name} ended with {code}")
        await balancers.when("everybody is elsewhere", lambda n=node: all(s.node and s.node != n.name for s in sessions), 60)
        most, came = most_in_a_second(sessions, began)
        planned = had / (WINDOW_S / 2)
        rows.append(f"{node.name} {had} sessions, {came} came back, {planned:.0f} a second planned, at most {most}")
        if most > 2 * planned:
            raise Failed(f"{node.name}: {most} came back in a second, {planned:.0f} were planned")
        stage.nodes[at] = await asyncio.to_thread(node.again, after)
        await asyncio.sleep(3)
    return rows


async def tried(stage, after, count):
    sessions = await enter(stage, count)
    backend = Backend(stage)
    publishing = asyncio.create_task(backend.go_on())
    await asyncio.sleep(3)
    rolling = asyncio.create_task(roll(stage, sessions, after))
    done, _ = await asyncio.wait([publishing, rolling], return_when=asyncio.FIRST_COMPLETED)
    if publishing in done:
        publishing.result()
    rows = rolling.result()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    # What a thread was about to publish when it was cancelled.
    await asyncio.sleep(2)
    last = dict(backend.numbers)
    await balancers.when("the last message comes", lambda: all(s.seen >= last[n % TOPICS] for n, s in enumerate(sessions)), 60)
    faults = [f"{s.user}: {fault}" for s in sessions for fault in s.faults]
    stayed = sum(len(s.nodes) == 1 for s in sessions)
    refused = sum(len(s.refused) for s in sessions)
    await asyncio.gather(*(session.stop() for session in sessions))
    if faults:
        raise Failed(f"{len(faults)} faults, first {faults[0]}")
    return rows, sum(last.values()), refused, stayed


def main():
    root, before, after, folder, name = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]), sys.argv[5]
    count = int(sys.argv[6]) if len(sys.argv) > 6 else 2000
    try:
        stage = balancers.Stage(root, before, folder, name, False, DRAIN)
        rows, published, refused, stayed = asyncio.run(tried(stage, after, count))
    except Failed as failed:
        print(f"roll: {name}: {failed}", file=sys.stderr)
        return 1
    finally:
        kill_all()
    print("\n".join(f"{name}: {row}" for row in rows))
    print(f"{name}: {count} sessions ({stayed} never had to move), {published} publications, each once and in order; "
          f"{refused} handshakes were refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
