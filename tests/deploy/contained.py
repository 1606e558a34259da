"""Nodes in containers, each with an address of its own on one network, and a Redis beside them.

In: images that podman has, whose storage is named by the environment (use_containers of tools-image.sh).
Out: containers that are asked as the processes of rig.py are. They run as in production: read-only,
without capabilities, as the user of the image, with a limit of memory.
"""

import contextlib
import json
import subprocess

from rig import API_KEY, Failed, Gateway, until

NETWORK = "fanfare-check"
SUBNET = "10.87.1"
REDIS_IMAGE = "docker.io/valkey/valkey:8.1-alpine"
REDIS = f"redis://{SUBNET}.2:6379"
MEMORY = "768m"


def podman(*arguments, patience_s=60):
    """What podman prints. A program that it cannot run has failed."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=patience_s)
    if done.returncode:
        raise Failed(f"podman {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout.strip()


@contextlib.contextmanager
def network():
    """The network and its Redis, for as long as the block lasts. All of it goes with everything on it."""
    clear()
    podman("network", "create", "--subnet", f"{SUBNET}.0/24", NETWORK)
    try:
        podman("run", "--detach", "--name", f"{NETWORK}-redis", "--pull", "never", "--read-only", "--cap-drop", "ALL",
               "--network", NETWORK, "--ip", f"{SUBNET}.2", REDIS_IMAGE,
               "valkey-server", "--save", "", "--protected-mode", "no")
        yield
    finally:
        clear()


def clear():
    """Ends what an earlier run has left, or this one."""
    names = podman("ps", "--all", "--filter", f"name=^{NETWORK}-", "--format", "{{.Names}}").split()
    if names:
        podman("rm", "--force", "--time", "0", *names)
    podman("network", "rm", "--force", NETWORK)


def longest_stop_s(image, settings):
    """What `config show` of the image says of its stop: whoever stops it waits for longer than that."""
    variables = [f"--env={key}={value}" for key, value in settings.items()]
    shown = podman("run", "--rm", "--pull", "never", *variables, image, "config", "show", "--dev", "--redis", REDIS)
    for line in shown.splitlines():
        found = json.loads(line)
        if found["key"] == "stop.longest_s":
            return found["value"]
    raise Failed(f"config show of {image} has no stop.longest_s")


class Container(Gateway):
    """A node in a container. It can be started again under its name and address, from another image."""

    def __init__(self, image, name, number, settings, grace_s):
        self.name, self.grace_s = name, grace_s
        self.container = f"{NETWORK}-{name}"
        host = f"{SUBNET}.{10 + number}"
        self.address, self.api = f"{host}:8080", f"http://{host}:8081"
        self.image = podman("image", "inspect", "--format", "{{.Id}}", image)
        settings_here = {"FANFARE_API__KEYS": API_KEY, "FANFARE_LOG__FORMAT": "json", **settings}
        podman("run", "--detach", "--name", self.container, "--pull", "never", "--read-only", "--cap-drop", "ALL",
               "--security-opt", "no-new-privileges", "--memory", MEMORY, "--pids-limit", "128",
               "--network", NETWORK, "--ip", host, "--stop-timeout", str(grace_s),
               *(f"--env={key}={value}" for key, value in settings_here.items()), image,
               "serve", "--dev", "--redis", REDIS, "--node-id", name,
               "--listen", "0.0.0.0:8080", "--api-listen", "0.0.0.0:8081")
        self.again = lambda other=image: Container(other, name, number, settings, grace_s)
        until(f"{name} is ready", self.ready)

    def ready(self):
        if self.inspect("{{.State.Running}}") != "true":
            raise Failed(f"{self.name} has ended: {self.log()[-2000:]}")
        return self.health("ready") == 200

    def inspect(self, form):
        return podman("inspect", "--format", form, self.container)

    def log(self):
        return subprocess.run(["podman", "logs", self.container], capture_output=True, text=True).stderr

    def stop(self):
        """As a runtime does: SIGTERM, and SIGKILL after the grace period. Its exit code."""
        running = self.inspect("{{.Image}}").removeprefix("sha256:")
        if running != self.image:
            raise Failed(f"{self.name} runs {running}, not {self.image}")
        podman("stop", self.container, patience_s=self.grace_s + 30)
        code = int(self.inspect("{{.State.ExitCode}}"))
        podman("rm", self.container)
        return code
