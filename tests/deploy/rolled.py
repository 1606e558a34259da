"""An upgrade under load: three containers of one image are rolled to another one behind a balancer.

    rolled.py ROOT BEFORE AFTER FOLDER BALANCER [SESSIONS]

One node after the other is asked to leave by `podman stop`, waited for, and started again from the other
image. All the while 100 publications a second go to 100 topics. Prints who came back in which second. Ends
with 1 where a session missed something, got it twice or out of order, where one did not come back, where
more than twice the planned number came back within any second, or where a node had to be killed.
"""

import asyncio
import collections
import itertools
import pathlib
import sys
import time

import balancers
import contained
from rig import Failed, kill_all
from sessions import Session

TOPICS = 100
PUBLICATIONS_PER_S = 100
DELAY_S, WINDOW_S = 4, 16
# What a runtime waits longer than the longest stop, as the chart does.
MARGIN_S = 10
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


def most_in_a_second(times):
    """The fullest second, wherever it begins."""
    best, low = 0, 0
    for high, moment in enumerate(times):
        while moment - times[low] > 1:
            low += 1
        best = max(best, high - low + 1)
    return best


class Pulse:
    """How late this process comes to what is due, second by second: what it measures is late as well."""

    def __init__(self):
        self.late_s = collections.Counter()
        self.task = asyncio.create_task(self.beat())

    async def beat(self):
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            second = int(due)
            self.late_s[second] = max(self.late_s[second], time.monotonic() - due)

    def within(self, since, seconds):
        return [max(self.late_s[int(since) + n], self.late_s[int(since) + n + 1]) for n in range(seconds)]


def chart(name, began, planned, gone, pulse):
    """What happened in each second since the node was asked to leave, beside the plan."""
    moments = {
        "told or cut": [a.left_at for a in gone],
        "due back": [a.due_at for a in gone],
        "came back": [a.back_at for a in gone],
    }
    seconds = int(max(max(times) for times in moments.values()) - began) + 1
    lines = [f"{name}: by the second, {planned:.0f} planned"]
    for what, times in moments.items():
        counts = collections.Counter(int(moment - began) for moment in times)
        lines.append(f"  {what:12}" + "".join(f"{counts[n]:5}" for n in range(seconds)))
    late = pulse.within(began, seconds)
    lines.append(f"  {'ms too late':12}" + "".join(f"{1000 * s:5.0f}" for s in late))
    why = collections.Counter(" and ".join(a.why) for a in gone)
    takes = sorted(a.back_at - a.due_at for a in gone)
    lines.append("  " + ", ".join(f"{count} {reason}" for reason, count in why.most_common())
                 + f"; a handshake took {1000 * takes[len(takes) // 2]:.0f} ms, at most {1000 * takes[-1]:.0f} ms")
    return lines


async def left(stage, at, sessions, pulse):
    """One node leaves. What was planned and what was seen."""
    node = stage.nodes[at]
    began, had = time.monotonic(), node.sessions()
    code = await asyncio.to_thread(node.stop)
    took_s = time.monotonic() - began
    if code != 0:
        raise Failed(f"{node.name} ended with {code}, {took_s:.1f} s after it was asked to")
    await balancers.when("everybody is elsewhere", lambda: all(s.node and s.node != node.name for s in sessions), 60)
    gone = [a for s in sessions for a in s.absences if a.left_at >= began]
    most = most_in_a_second(sorted(a.back_at for a in gone))
    planned = had / (WINDOW_S / 2)
    print("\n".join(chart(f"{stage.name}, {node.name}", began, planned, gone, pulse)), flush=True)
    if len(gone) < had:
        raise Failed(f"{node.name} had {had} sessions, and {len(gone)} came back")
    if most > 2 * planned:
        late_ms = 1000 * max(pulse.within(began, int(time.monotonic() - began) + 1))
        raise Failed(f"{node.name}: {most} came back in a second, {planned:.0f} were planned; this process was up to "
                     f"{late_ms:.0f} ms late, and who is due in such a pause comes at its end")
    return (f"{node.name} {had} sessions, {len(gone)} came back, {planned:.0f} a second planned, at most {most}; "
            f"it ended {took_s:.1f} s after SIGTERM, of {node.grace_s} s that it had")


async def roll(stage, sessions, after):
    """Each node in turn."""
    rows, pulse = [], Pulse()
    for at, node in enumerate(stage.nodes):
        rows.append(await left(stage, at, sessions, pulse))
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
    settings = {**DRAIN, "FANFARE_REBALANCE__ENABLED": "false"}
    try:
        # The release before may not know how long it takes.
        grace_s = contained.longest_stop_s(after, settings) + MARGIN_S
        with contained.network():
            def start(_):
                return [contained.Container(before, f"node-{n}", n, settings, grace_s) for n in range(1, balancers.NODES + 1)]

            stage = balancers.Stage(root, folder, name, False, start)
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
