"""Processes for the checks of balancers and backups: a Redis, nodes, and what runs before them.

Each has free ports of its own and a log in the folder that it is given; all of them end with the
program that started them.
"""

import atexit
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE_S = 30
API_KEY = "check"
started = []


@atexit.register
def kill_all():
    """Ends everything that this process started. A process of a pool has to ask for it."""
    while started:
        started.pop().kill()


class Failed(Exception):
    """What a check found wrong, in words for people."""


def free_port(most=65535):
    """A port that nobody has now. A server of a Redis Cluster needs one up to 55,535."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if probe.getsockname()[1] <= most:
                return probe.getsockname()[1]


def until(what, ask, patience_s=PATIENCE_S):
    """Asks until the answer is true, and says at the deadline what it waited for."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience_s} s in vain: {what}")
        time.sleep(0.05)


class Process:
    """A program, its log, and its end."""

    def __init__(self, folder, name, command, environment=None):
        self.name = name
        self.log = pathlib.Path(folder) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        started.append(self)

    def kill(self):
        """Ends it and what it started at once, as a lost machine does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, patience_s=PATIENCE_S):
        """Asks it to end, and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def said(self):
        return self.log.read_text(errors="replace")

    def until(self, what, ask, patience_s=PATIENCE_S):
        """As `until`, and ends early with its log where the program has ended."""

        def asked():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}: {self.said()[-2000:]}")
            return ask()

        return until(f"{self.name}: {what}", asked, patience_s)


def http(method, url, body=None, key=None, timeout_s=5):
    """One request: status and body. An answer that is no success is an answer too."""
    request = urllib.request.Request(url, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    data = None
    if body is not None:
        request.add_header("Content-Type", "application/json")
        data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, data, timeout_s) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError:
        return 0, b""


class Redis(Process):
    """A redis-server without persistence."""

    def __init__(self, folder, name="redis", arguments=()):
        self.port = free_port(55535 if "--cluster-enabled" in arguments else 65535)
        self.url = f"redis://127.0.0.1:{self.port}"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                   "--dir", str(folder), "--dbfilename", f"{name}.rdb"]
        super().__init__(folder, name, command + list(arguments))
        self.until("answers", self.answers)

    def answers(self):
        """Whether it takes a connection and knows a PING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as asked:
                asked.sendall(b"PING\r\n")
                return asked.recv(16)[:1] in b"+-"
        except OSError:
            return False


class Gateway:
    """What a node is asked, wherever it runs: by its `name`, its `address` and the URL of its `api`."""

    def health(self, question):
        return http("GET", f"http://{self.address}/health/{question}")[0]

    def sessions(self):
        """How many sessions it has, by its metrics."""
        for line in http("GET", f"{self.api}/metrics")[1].decode().splitlines():
            if line.startswith("fanfare_sessions "):
                return int(float(line.split()[1]))
        raise Failed(f"{self.name} tells no fanfare_sessions")

    def publish(self, topic, data):
        """Publishes, and gives the position. A repeat of the same publication is none."""
        body = {"topic": topic, "data": data, "idempotency_key": f"{topic}-{data}"}
        status, body = http("POST", f"{self.api}/v1/publish", body, API_KEY)
        return json.loads(body)["results"][0].get("position") if status == 200 else None


class Node(Process, Gateway):
    """A node over a Redis. It can be started again under its name and on its ports."""

    def __init__(self, binary, folder, name, redis_url, more=None, ports=None):
        self.port, self.api_port = ports or (free_port(), free_port())
        self.address = f"127.0.0.1:{self.port}"
        self.api = f"http://127.0.0.1:{self.api_port}"
        command = [binary, "serve", "--dev", "--redis", redis_url, "--node-id", name,
                   "--listen", self.address, "--api-listen", f"127.0.0.1:{self.api_port}"]
        environment = {"FANFARE_API__KEYS": API_KEY, "FANFARE_LOG__FORMAT": "json", **(more or {})}
        super().__init__(folder, name, command, environment)
        self.again = lambda other=binary: Node(other, folder, name, redis_url, more, (self.port, self.api_port))
        self.until("is ready", lambda: self.health("ready") == 200)
