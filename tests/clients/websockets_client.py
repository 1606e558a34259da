"""A client of fanfare.v1 on the PyPI package `websockets`, as a user of Fanfare would write one.

    python websockets_client.py WS_URL API_URL json|msgpack

It goes through a session's life step by step and ends with status 1 at the first step that does
not do what the protocol says.
"""

import asyncio
import json
import sys
import urllib.request

import msgpack
from websockets.asyncio.client import connect

WS_URL, API_URL, WIRE = sys.argv[1:4]
PATIENCE_S = 10


class Session:
    """One session; events that nobody waits for yet stay in the order in which they came."""

    def __init__(self, socket):
        self.socket = socket
        self.waiting = []
        self.ids = 0

    @classmethod
    async def open(cls, user):
        subprotocol = f"fanfare.v1.{WIRE}"
        session = cls(await connect(f"{WS_URL}?user={user}", subprotocols=[subprotocol]))
        assert session.socket.subprotocol == subprotocol, session.socket.subprotocol
        session.welcome = await session.event(lambda event: event["type"] == "welcome")
        assert session.welcome["user"] == user, session.welcome
        return session

    async def event(self, fits):
        for at, event in enumerate(self.waiting):
            if fits(event):
                return self.waiting.pop(at)
        while True:
            raw = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
            assert isinstance(raw, bytes) == (WIRE == "msgpack"), type(raw)
            event = msgpack.unpackb(raw) if isinstance(raw, bytes) else json.loads(raw)
            if fits(event):
                return event
            self.waiting.append(event)

    async def message(self, topic):
        return await self.event(
            lambda event: event["type"] == "message" and event["topic"] == topic
        )

    async def ask(self, **command):
        self.ids += 1
        command["id"] = wanted = self.ids
        packed = msgpack.packb(command) if WIRE == "msgpack" else json.dumps(command)
        await self.socket.send(packed)
        answer = await self.event(lambda event: event.get("id") == wanted)
        assert answer["type"] == "ok", answer
        return answer


def publish_by_api(body):
    request = urllib.request.Request(
        f"{API_URL}/v1/publish",
        data=json.dumps(body).encode(),
        headers={"authorization": "Bearer dev", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return json.load(response)["results"][0]["position"]


async def main():
    user = f"websockets-{WIRE}"
    topic = f"clients:{user}"
    session = await Session.open(user)

    data = {"text": "grüß dich", "list": [1, -2, 2.5, True, None], "nested": {"deep": [[]]}}
    await session.ask(type="subscribe", topic=topic)
    published = await session.ask(type="publish", topic=topic, data=data, echo=True)
    message = await session.message(topic)
    assert message["data"] == data, message
    assert message["position"] == published["position"], message
    assert message["user"] == user, message

    history = await session.ask(type="history", topic=topic)
    assert [one["data"] for one in history["publications"]] == [data], history
    assert history["more"] is False, history

    position = publish_by_api({"user": user, "data": "to you"})
    inbox = await session.message(f"@{user}")
    assert inbox["data"] == "to you", inbox
    acked = await session.ask(type="ack", position=inbox["position"])
    assert acked["position"] == position, acked

    session.socket.transport.abort()
    await session.socket.wait_closed()
    for number in range(50):
        publish_by_api({"topic": topic, "data": number})
    session = await Session.open(user)
    assert session.welcome["inbox"]["pending"] == 0, session.welcome
    assert session.welcome["inbox"]["position"] == position, session.welcome
    resumed = await session.ask(type="subscribe", topic=topic, since=message["position"])
    assert resumed["recovered"] is True, resumed
    for number in range(50):
        assert (await session.message(topic))["data"] == number
    publish_by_api({"topic": topic, "data": "live"})
    assert (await session.message(topic))["data"] == "live"

    await session.ask(type="unsubscribe", topic=topic)
    await session.socket.close(1000)
    assert session.socket.close_code == 1000, session.socket.close_code


asyncio.run(main())
