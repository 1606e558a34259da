"""Sessions as a client keeps them, on the PyPI package `websockets`: they resume, and count.

What is published to the topic is 1, 2, 3 and so on; a session says what it missed, got twice, or
got in another order.
"""

import asyncio
import dataclasses
import json
import random
import time
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

SUBPROTOCOL = "fanfare.v1.json"


@dataclasses.dataclass
class Absence:
    """From the end of a connection to the next welcome, by the clock of `time.monotonic`.

    `why` has a word for each try that ended: `told` to go, `cut` off, `refused` at the door.
    """

    left_at: float
    due_at: float
    why: list
    back_at: float | None = None


class Session:
    """One client that comes back until it is stopped."""

    def __init__(self, url, user, topic, by_key, token=None):
        query = {"token": token} if token else {"user": user}
        query["wait"] = "1"
        if by_key:
            query["route"] = user
        self.url = f"{url}/v1/connect?{urllib.parse.urlencode(query)}"
        self.user, self.topic = user, topic
        self.position, self.seen = None, 0
        self.node, self.nodes, self.absences = None, [], []
        self.faults, self.refused, self.breaks, self.drains = [], [], 0, 0
        self.task = asyncio.create_task(self.stay())

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stay(self):
        while True:
            why, pause_s = await self.once()
            self.left(why, pause_s)
            await asyncio.sleep(pause_s)

    def left(self, why, pause_s):
        """It is out, and will try again after so long."""
        now = time.monotonic()
        if self.node or not self.absences:
            self.absences.append(Absence(now, now + pause_s, [why]))
        else:
            self.absences[-1].why.append(why)
            self.absences[-1].due_at = now + pause_s
        self.node = None

    async def once(self):
        """One connection, to its end. Why it ended, and how long to wait before the next one."""
        try:
            async with connect(
                self.url, subprotocols=[SUBPROTOCOL], compression=None, ping_interval=None, proxy=None,
                close_timeout=2, open_timeout=10,
            ) as socket:
                named = {"topic": self.topic}
                if self.position:
                    named["since"] = self.position
                await socket.send(json.dumps({"type": "connect", "id": 1, "topics": [named]}))
                async for text in socket:
                    pause_s = self.took(json.loads(text))
                    if pause_s is not None:
                        return "told", pause_s
        except InvalidStatus as refusal:
            self.refused.append(refusal.response.status_code)
            return "refused", random.uniform(0.5, 1.5)
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError, TimeoutError):
            pass
        self.breaks += 1
        return "cut", random.uniform(0.1, 1.0)

    def took(self, event):
        """One event. A number says to come back after so long."""
        kind = event["type"]
        if kind == "welcome":
            joined = event["topics"][self.topic]
            if not joined.get("recovered", False):
                self.faults.append(f"not recovered: {joined}")
            if self.position is None:
                self.position = joined.get("position")
            self.node = event["node"]
            self.nodes.append(self.node)
            if self.absences:
                self.absences[-1].back_at = time.monotonic()
        elif kind == "message":
            self.position = event["position"]
            if event["data"] != self.seen + 1:
                self.faults.append(f"{event['data']} after {self.seen}")
            self.seen = event["data"]
        elif kind == "gap":
            self.faults.append(f"gap: {event}")
        elif kind == "drain":
            self.drains += 1
            return event["reconnect_after_ms"] / 1000
        return None
