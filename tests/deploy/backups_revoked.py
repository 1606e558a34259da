"""What is revoked stays so through a restore and a move: over real servers and nodes."""

import subprocess
import time

from rig import API_KEY, Failed, Node, Redis, http, until

# A second that lies far enough ahead to tell from the usual one, and near enough to be taken.
AHEAD_S = 1_000


class Revoked:
    """The checks, with what the others have: where things lie, how to run a script and to claim something."""

    def __init__(self, binary, folder, run, check):
        self.binary, self.folder, self.run, self.check = binary, folder, run, check

    def all(self):
        self.in_a_restore()
        self.in_a_move()
        self.refusals()

    def node(self, name, url, more=None):
        return Node(self.binary, self.folder, name, url, more)

    def in_a_restore(self):
        """Somebody is revoked after the backup, Redis is restored, and he stays out."""
        archive = self.folder / "revoked.tar"
        server = Redis(self.folder, "revoked")
        node = self.node("node-revoked", server.url)
        revoke(node, "alice")
        revoke_token(node, "t-1")
        node.publish("orders:1", 1)
        self.run("backup", "--redis", server.url, "--to", archive)
        later = revoke(node, "alice", int(time.time()) + AHEAD_S)
        revoke(node, "bob")
        node.kill()
        before = held(server)
        self.check("there is more after the backup", set(before) == {"u default alice", "u default bob", "t default t-1"}, before)

        # The target is the server itself. Without carrying, what came after the backup is gone.
        aside = f"{server.url}/1"
        said = self.run("carry-revocations", "--from", server.url, "--redis", aside)
        self.check("all are carried aside", "carried 3 revocations, 3 of them new or stronger" in said, said)
        cli(server, "FLUSHDB")
        self.run("restore", archive, "--redis", server.url)
        self.check("a restore alone forgets what came after the backup", set(held(server)) == {"u default alice", "t default t-1"},
                   held(server))
        self.check("and has the weaker one", held(server)["u default alice"] < before["u default alice"], held(server))

        cli(server, "FLUSHDB")
        said = self.run("carry-revocations", "--from", aside, "--redis", server.url)
        self.check("all are carried back", "carried 3 revocations, 3 of them new or stronger" in said, said)
        said = self.run("restore", archive, "--redis", server.url)
        self.check("a restore merges them with its own", "merged with those of the target: 2 revocations, 0 of them new" in said, said)
        self.check("what was revoked after the backup is", held(server) == before, (held(server), before))
        self.check("the second is the later one", held(server)["u default alice"][0] == later, held(server))
        node = self.node("node-revoked-again", server.url)
        self.agrees("a node reads all and has nothing to mend", node, 3)
        node.stop()

        # The other way round: the target has little, and the backup the most.
        cli(server, "FLUSHDB")
        node = self.node("node-revoked-other", server.url)
        revoke(node, "carol")
        node.kill()
        keep_revocations_alone(server)
        said = self.run("restore", archive, "--redis", server.url)
        self.check("those of the backup come to those of the target", "2 revocations, 2 of them new" in said, said)
        self.check("all are there", set(held(server)) == {"u default alice", "u default carol", "t default t-1"}, held(server))
        node = self.node("node-revoked-both", server.url)
        self.agrees("a node reads both and has nothing to mend", node, 3)
        node.stop()
        server.kill()

    def agrees(self, what, node, count):
        """Waits until it has read so many, and looks that nothing had to be put right."""
        until(f"{count} revocations", lambda: metric(node, "fanfare_revocations") == count)
        mended = [metric(node, name) for name in ("fanfare_revocations_mended_total", "fanfare_revocations_restored_total")]
        self.check(what, mended == [0, 0], (mended, node.said()[-2_000:]))

    def in_a_move(self):
        """To another prefix and another server, while nodes run on both."""
        server, other = Redis(self.folder, "moved"), Redis(self.folder, "moved-to")
        old, new = self.node("old", server.url), self.node("new", other.url, {"FANFARE_REDIS__PREFIX": "ff2"})
        for number in range(14):
            revoke_token(old, *(f"t-{number}-{nth}" for nth in range(100)))
        revoke(old, "alice")
        later = revoke(new, "alice", int(time.time()) + AHEAD_S)
        revoke(new, "dora")
        words = ["--from", server.url, "--from-prefix", "ff", "--redis", other.url, "--prefix", "ff2"]
        said = self.run("carry-revocations", *words)
        self.check("all of another prefix are carried", "carried 1401 revocations, 140" in said, said)
        self.agrees("a node that runs reads them, and has nothing to mend", new, 1402)
        self.check("none is made weaker", held(other, "ff2")["u default alice"][0] == later, held(other, "ff2")["u default alice"])
        said = self.run("carry-revocations", *words)
        self.check("a repeat changes nothing", "carried 1401 revocations, 0 of them new" in said, said)
        revoke(old, "eve")
        self.run("carry-revocations", *words)
        self.agrees("what is revoked later is carried by a repeat", new, 1403)
        self.check("where they come from stays as it is", len(held(server)) == 1402, len(held(server)))
        # Its node would put this right.
        old.kill()
        cli(server, "HSET", "ff:{rv}:h", "u default mallory", "banana")
        said = self.run("carry-revocations", *words)
        self.check("what cannot be read is told", "1 cannot be read and were left out" in said, said)
        new.kill()
        server.kill()
        other.kill()

    def refusals(self):
        archive, server, other = self.folder / "revoked.tar", Redis(self.folder, "full"), Redis(self.folder, "bare")
        said = self.run("carry-revocations", "--from", server.url, "--redis", other.url, code=1)
        self.check("a source without any is told", "has no revocations of the prefix ff" in said and "Nothing was written" in said, said)
        said = self.run("carry-revocations", "--from", server.url, "--redis", server.url, code=1)
        self.check("the target itself is told", "--from is the target itself" in said, said)
        said = self.run("carry-revocations", "--redis", server.url, code=64)
        self.check("a call without a source is told", "--from" in said, said)
        cli(server, "HSET", "ff:{rv}:h", "u default ada", "1 2 3")
        cli(server, "SET", "other", "x")
        said = self.run("restore", archive, "--redis", server.url, code=1)
        self.check("revocations and something else is not empty", "for example other" in said and "carry-revocations" in said, said)
        cli(server, "DEL", "ff:{rv}:h")
        cli(server, "SET", "ff:{rv}:h", "text")
        said = self.run("carry-revocations", "--from", server.url, "--redis", other.url, code=1)
        self.check("a key of another type is told", "is of another type or may not be read" in said, said)
        server.kill()
        other.kill()


def cli(server, *words):
    said = subprocess.run(["redis-cli", "-p", str(server.port), *words], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def held(server, prefix="ff"):
    """What is revoked: before which second, until when."""
    told = cli(server, "HGETALL", f"{prefix}:{{rv}}:h")
    return {name: tuple(map(int, value.split()[:2])) for name, value in zip(told[::2], told[1::2], strict=True)}


def keep_revocations_alone(server):
    """As an operator would who knows that he wants these alone."""
    for key in cli(server, "--scan"):
        if not key.startswith("ff:{rv}:"):
            cli(server, "DEL", key)


def revoke(node, user, issued_before=None):
    """Before which second, as it was answered."""
    body = {"issued_before": issued_before} if issued_before else {}
    status, said = http("POST", f"{node.api}/v1/users/{user}/revoke", body, API_KEY)
    if status != 200:
        raise Failed(f"{user} was not revoked: {status} {said}")
    return int(said.split(b'"issued_before":')[1].split(b",")[0].strip(b"} "))


def revoke_token(node, *ids):
    status, said = http("POST", f"{node.api}/v1/revoke", {"jti": list(ids)}, API_KEY)
    if status != 200:
        raise Failed(f"{ids} were not revoked: {status} {said}")


def metric(node, name):
    for line in http("GET", f"{node.api}/metrics")[1].decode().splitlines():
        if line.startswith(f"{name} "):
            return int(float(line.split()[1]))
    raise Failed(f"{node.name} tells no {name}")
