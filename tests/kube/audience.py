"""Sessions that stay while nodes come and go, and what they see.

In: the nodes of a Kubelet. Out: a balancer that gives each new connection to the ready node with the
fewest, as a Service never does and load balancers do; `fanfare subscribe` processes behind it, all of one
user; a message to the inbox of that user each second; and whether every session had every message once and
in order. It is an inbox, because what is for everyone has no history: who is away misses it.
"""

import asyncio
import collections
import json
import os
import re
import subprocess
import threading
import time
import urllib.request

from control_plane import Fault

SESSIONS = 120
USER = "audience"
EVERY_S = 1
TRIES = 20
TICK = re.compile(r'"tick":\s*(\d+)')


class Balancer:
    def __init__(self, kubelet):
        self.kubelet, self.open = kubelet, collections.Counter()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.take, "127.0.0.1", 0), self.loop)
        self.port = started.result().sockets[0].getsockname()[1]

    def stop(self):
        async def end():
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for one in others:
                one.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def take(self, reader, writer):
        ready = [node for node in self.kubelet.serving() if node.ready]
        if not ready:
            return writer.close()
        node = min(ready, key=lambda one: self.open[one])
        self.open[node] += 1
        try:
            theirs = await asyncio.open_connection("127.0.0.1", node.ports["http"])
            await asyncio.gather(pump(reader, theirs[1]), pump(theirs[0], writer))
        except OSError:
            writer.close()
        finally:
            self.open[node] -= 1


async def pump(reader, writer):
    """Until one side ends; then the other is told."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Audience:
    def __init__(self, plane, kubelet, program, secret, key):
        self.kubelet, self.key, self.folder = kubelet, key, plane.folder / "audience"
        self.folder.mkdir()
        self.balancer = Balancer(kubelet)
        self.said, self.fault = 0, None
        self.ended = threading.Event()
        environment = {"PATH": os.environ["PATH"], "TOKEN_SECRET": secret}
        minted = [program, "token", "--user", USER, "--secret-env", "TOKEN_SECRET", "--ttl", "2h"]
        token = subprocess.run(minted, env=environment, check=True, text=True, capture_output=True).stdout.strip()
        command = [program, "subscribe", "--inbox", "--since", "0-0", "--format", "json",
                   "--url", f"ws://127.0.0.1:{self.balancer.port}/v1/connect"]
        self.running = []
        for number in range(SESSIONS):
            with open(self.folder / f"{number}.jsonl", "w") as seen, open(self.folder / f"{number}.log", "w") as log:
                self.running.append(subprocess.Popen(command, env={**environment, "FANFARE_TOKEN": token},
                                                     stdout=seen, stderr=log))
        self.speaker = threading.Thread(target=self.speak, daemon=True)
        self.speaker.start()

    def speak(self):
        while not self.ended.wait(EVERY_S):
            try:
                self.publish(self.said)
            except OSError as fault:
                self.fault = f"message {self.said} was not taken: {fault}"
                return
            self.said += 1

    def publish(self, number):
        """By whichever node takes it. The key makes a second try the same message."""
        body = {"user": USER, "data": {"tick": number}, "idempotency_key": f"tick-{number}"}
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        for left in reversed(range(TRIES)):
            node = self.kubelet.serving()[number % len(self.kubelet.serving())]
            url = f"http://127.0.0.1:{node.ports['api']}/v1/publish"
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.read()
            except OSError:
                if not left:
                    raise
                time.sleep(0.5)

    def judge(self):
        """All sessions have all messages once, in order. Returns how many messages there were."""
        self.ended.set()
        self.speaker.join()
        if self.fault:
            raise Fault(self.fault)
        wanted, end = list(range(self.said)), time.monotonic() + 30
        while True:
            wrong = [number for number in range(SESSIONS) if self.seen(number) != wanted]
            if not wrong:
                return self.said
            if time.monotonic() > end:
                missing = sorted(set(wanted) - set(self.seen(wrong[0])))
                raise Fault(f"of {SESSIONS} sessions {len(wrong)} had not all {self.said} messages once and in "
                            f"order; session {wrong[0]} missed {missing}")
            time.sleep(0.5)

    def seen(self, number):
        return [int(tick) for tick in TICK.findall((self.folder / f"{number}.jsonl").read_text())]

    def stop(self):
        self.ended.set()
        for one in self.running:
            one.terminate()
        for one in self.running:
            one.wait()
        self.balancer.stop()
