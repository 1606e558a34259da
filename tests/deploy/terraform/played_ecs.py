"""An ECS and nodes that are played, for the cases of scripts/ecs-drain.

In: how many tasks there are, how their nodes behave, and how ECS does. Out: what the script exited with and
said, its nodes, and what ECS was asked. One server is all nodes, which are told apart by their address of
loopback; `aws` is a program in front of the PATH that reads and writes one file.
"""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KEY = "key-of-the-api"
# ECS as ecs-drain sees it: it decides to stop the old tasks at the second look after the update began, or
# where nobody began one, before the first. It cuts none: what is left then is judged by the case.
AWS = """#!{python}
import datetime, json, pathlib, sys, time
path = pathlib.Path({state!r})
state = json.loads(path.read_text())
call = sys.argv[2]
asked = sys.argv[sys.argv.index("--tasks") + 1 : -2] if "--tasks" in sys.argv else []
state["calls"].append(sys.argv[2:])
state["looks"] += call == "describe-services"
decided = state["looks"] >= 2 if state["updates"] else True
gone = pathlib.Path({folder!r}) / "gone"
alive = [t for t in state["tasks"] if not (gone / t["arn"]).exists()]
created = time.time() - state["age_s"]
# The AWS CLI writes times as text (2) or as a number (1).
created = datetime.datetime.fromtimestamp(created, datetime.timezone.utc).isoformat() if state["cli"] == 2 else created
ours = {{"id": "ecs-svc/2", "status": "PRIMARY", "rolloutState": "IN_PROGRESS", "createdAt": created}}
old = {{"id": "ecs-svc/1", "status": "ACTIVE", "rolloutState": "COMPLETED"}}
if state["looks"] in state["failed_looks"] and call == "describe-services":
    path.write_text(json.dumps(state))
    sys.exit("ThrottlingException: rate exceeded")
if call == "update-service":
    answer = {{"service": {{"deployments": [ours, old]}}}}
elif call == "list-tasks":
    answer = {{"taskArns": [t["arn"] for t in alive] if decided else []}}
elif call == "describe-tasks":
    assert 1 <= len(asked) <= 100, len(asked)
    answer = {{"tasks": [{{"taskArn": t["arn"], "lastStatus": "DEACTIVATING", "attachments": [{{"details": [
        {{"name": "privateIPv4Address", "value": t["address"]}}]}}]}} for t in alive if t["arn"] in asked]}}
else:
    steady = decided and not alive
    deployments = [ours | {{"rolloutState": "COMPLETED"}}] if steady else [ours, old]
    if state["rolled_back"] and decided:
        back = old | {{"id": "ecs-svc/3", "status": "PRIMARY", "rolloutStateReason": "ECS deployment circuit breaker: rolling back"}}
        deployments = [back] if steady else [back, ours | {{"status": "ACTIVE", "rolloutState": "FAILED"}}]
    answer = {{"services": [{{"deployments": deployments, "runningCount": 2, "desiredCount": 2}}]}}
path.write_text(json.dumps(state))
print(json.dumps(answer))
"""


class Node:
    """A node that ends `ends_after_s` after it was told to leave; never where that is None."""

    def __init__(self, name, address, ends_after_s):
        self.name, self.address, self.ends_after_s = name, address, ends_after_s
        self.told, self.asked_at, self.ended_at = [], [], None
        # What it answers to the first calls that tell it to leave, before it obeys.
        self.refusals = []
        self.is_reached = True


class Nodes:
    """All nodes, behind one server. `gone` has a file for each that ended."""

    def __init__(self, count, ends_after_s, gone):
        self.gone = gone
        self.all = [Node(f"old-{index}", f"127.0.{40 + index // 200}.{1 + index % 200}", ends_after_s) for index in range(count)]
        by_address = {node.address: node for node in self.all}
        nodes = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, code, body):
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def node(self):
                """The node that is called, or None where it does not answer."""
                node = by_address.get(self.connection.getsockname()[0])
                return node if node and node.is_reached and node.ended_at is None else None

            def do_GET(self):
                if node := self.node():
                    self.answer(503 if node.told else 200, {"node": node.name})

            def do_POST(self):
                if not (node := self.node()):
                    return
                node.asked_at.append(time.monotonic())
                if self.headers["Authorization"] != f"Bearer {KEY}" or self.path != f"/v1/nodes/{node.name}/drain":
                    self.answer(401, {"error": {"code": "unauthorized"}})
                elif node.refusals:
                    self.answer(node.refusals.pop(0), {"error": {"code": "unavailable"}})
                else:
                    node.told.append(time.monotonic())
                    self.answer(200, {"node": node.name})
                    if node.ends_after_s is not None:
                        threading.Timer(node.ends_after_s, nodes.end, [node]).start()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

        self.server = Server(("0.0.0.0", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self, node):
        if node.ended_at is None:
            node.ended_at = time.monotonic()
            (self.gone / node.name).touch()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Played:
    """A run of the script: what it exited with and said, the nodes, and the calls of ECS."""

    def __init__(self, done, nodes, calls, begun):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.nodes, self.calls = nodes, calls
        self.first_at = min((node.told[0] for node in nodes if node.told), default=begun)

    def told_after_s(self):
        """When each node was told, counted from the first."""
        return sorted(node.told[0] - self.first_at for node in self.nodes if node.told)

    def late(self, delay_s):
        """Nodes that were still there when the balancer cut, `delay_s` after ECS had decided."""
        return [node.name for node in self.nodes if node.ended_at is None or node.ended_at - self.first_at > delay_s]


def play(script, *arguments, count=2, ends_after_s=0.5, key=KEY, prepare=None, **ecs):
    """An update of `count` tasks. `prepare` may change the nodes; `ecs` what ECS does."""
    with tempfile.TemporaryDirectory(prefix="fanfare-drain-") as folder:
        gone = Path(folder) / "gone"
        gone.mkdir()
        nodes = Nodes(count, ends_after_s, gone)
        if prepare:
            prepare(nodes)
        state = Path(folder) / "ecs.json"
        tasks = [{"arn": node.name, "address": node.address} for node in nodes.all]
        begun = {"looks": 0, "calls": [], "tasks": tasks, "age_s": 0, "rolled_back": False, "failed_looks": [], "cli": 2}
        begun["updates"] = "--force-new-deployment" in arguments or "--task-definition" in arguments
        state.write_text(json.dumps(begun | ecs))
        program = Path(folder) / "aws"
        program.write_text(AWS.format(python=sys.executable, state=str(state), folder=folder))
        program.chmod(0o755)
        # By this Python itself: one in front of it may put programs of its own in front of ours.
        command = [sys.executable, script, "--cluster", "c", "--service", "s", "--api-port", str(nodes.port)]
        environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "FANFARE_API_KEY": key}
        started = time.monotonic()
        try:
            done = subprocess.run(
                [*command, "--look-every-s", "0.2", *arguments],
                env=environment, capture_output=True, text=True, check=False, timeout=120,
            )
        finally:
            nodes.close()
        return Played(done, nodes.all, json.loads(state.read_text())["calls"], started)
