"""scripts/ecs-drain against nodes and an ECS that are played here.

In: the script. Out: the number of cases, and faults. Nodes are HTTP servers on addresses of loopback that
end some time after they were told to leave; `aws` is a program in front of the PATH that reads and
writes one file. What a cloud does is not tested.
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
# ECS as ecs-drain sees it: it decides to stop the old tasks at the second look after the update began.
AWS = """#!{python}
import json, pathlib, sys
path = pathlib.Path({state!r})
state = json.loads(path.read_text())
call = sys.argv[2]
state["calls"].append(sys.argv[2:])
state["looks"] += call == "list-tasks"
decided = state["updated"] and state["looks"] >= 2
alive = [t for t in state["tasks"] if not pathlib.Path(t["gone"]).exists()]
if call == "update-service":
    state["updated"] = True
    answer = {{}}
elif call == "list-tasks":
    answer = {{"taskArns": [t["arn"] for t in alive] if decided else []}}
elif call == "describe-tasks":
    answer = {{"tasks": [{{"taskArn": t["arn"], "lastStatus": "DEACTIVATING", "attachments": [{{"details": [
        {{"name": "privateIPv4Address", "value": t["address"]}}]}}]}} for t in alive]}}
else:
    steady = decided and not alive
    answer = {{"services": [{{"deployments": [{{}}] if steady else [{{}}, {{}}], "runningCount": 2, "desiredCount": 2}}]}}
path.write_text(json.dumps(state))
print(json.dumps(answer))
"""


class Node:
    """A node that answers /health, and ends `ends_after_s` after it was told to leave; never where None."""

    def __init__(self, address, port, name, folder, ends_after_s):
        self.told, self.gone = [], Path(folder) / f"{name}.gone"
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, code, body):
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.answer(503 if node.told else 200, {"node": name})

            def do_POST(self):
                if self.headers["Authorization"] != f"Bearer {KEY}" or self.path != f"/v1/nodes/{name}/drain":
                    self.answer(401, {"error": {"code": "unauthorized"}})
                    return
                node.told.append(time.monotonic())
                self.answer(200, {"node": name})
                if ends_after_s is not None:
                    threading.Timer(ends_after_s, node.end).start()

            def log_message(self, *_):
                pass

        self.address, self.name = address, name
        self.server = http.server.ThreadingHTTPServer((address, port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.gone.touch()


def play(script, ends_after_s, arguments, key=KEY):
    """Two old tasks and an update. What the script exited with and said, its nodes, and what ECS was asked."""
    with tempfile.TemporaryDirectory(prefix="fanfare-drain-") as folder:
        first = Node("127.0.0.2", 0, "old-a", folder, ends_after_s)
        nodes = [first, Node("127.0.0.3", first.port, "old-b", folder, ends_after_s)]
        state = Path(folder) / "ecs.json"
        tasks = [{"arn": node.name, "address": node.address, "gone": str(node.gone)} for node in nodes]
        state.write_text(json.dumps({"updated": False, "looks": 0, "calls": [], "tasks": tasks}))
        program = Path(folder) / "aws"
        program.write_text(AWS.format(python=sys.executable, state=str(state)))
        program.chmod(0o755)
        # By this Python itself: one in front of it may put programs of its own in front of ours.
        command = [sys.executable, script, "--cluster", "c", "--service", "s", "--api-port", str(first.port), "--look-every-s", "0.1", *arguments]
        environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "FANFARE_API_KEY": key}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        calls = json.loads(state.read_text())["calls"]
        for node in nodes:
            if not node.gone.exists():
                node.end()
        return done, nodes, calls


def in_order(script):
    done, nodes, calls = play(script, 0.5, ["--force-new-deployment", "--stop-s", "20", "--delay-s", "300"])
    assert done.returncode == 0, done.stderr
    assert "the service is steady, 2 tasks have left" in done.stdout, done.stdout
    assert calls[0][0] == "update-service" and "--force-new-deployment" in calls[0], calls[0]
    assert all(len(node.told) == 1 for node in nodes), "each node is told once"
    assert nodes[1].told[0] - nodes[0].told[0] >= 0.5, "the second leaves when the first has left"


def at_once_where_time_is_short(script):
    done, nodes, _ = play(script, 2, ["--force-new-deployment", "--stop-s", "20", "--delay-s", "30"])
    assert done.returncode == 0, done.stderr
    assert nodes[1].told[0] - nodes[0].told[0] < 1.5, "both must have left before the balancer cuts"


def one_that_does_not_end(script):
    done, _, _ = play(script, None, ["--force-new-deployment", "--stop-s", "1", "--wait-s", "4"])
    assert done.returncode == 1, done.stdout
    assert "old-a (127.0.0.2) did not end" in done.stdout, done.stdout


def a_wrong_key(script):
    done, _, _ = play(script, 0.5, ["--force-new-deployment"], key="other")
    assert done.returncode == 1 and "answered 401" in done.stderr, done.stderr


def bad_input(script):
    done, _, _ = play(script, 0.5, [], key="")
    assert done.returncode == 64 and "FANFARE_API_KEY is not set" in done.stderr, done.stderr
    done, _, _ = play(script, 0.5, ["--stop-s", "400"])
    assert done.returncode == 64 and "--delay-s (300) must be at least --stop-s (400)" in done.stderr, done.stderr
    done, _, _ = play(script, 0.5, ["--unknown"])
    assert done.returncode == 64, done.stderr


def faults(root):
    cases = [in_order, at_once_where_time_is_short, one_that_does_not_end, a_wrong_key, bad_input]
    found = []
    for case in cases:
        try:
            case(str(root / "scripts/ecs-drain"))
        except (AssertionError, subprocess.TimeoutExpired) as fault:
            found.append(f"scripts/ecs-drain: {case.__name__}: {fault}")
    return len(cases), found
