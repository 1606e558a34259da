"""What once was called saved or restored and was not, and what was told too late. For backups.py."""

import hashlib
import io
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

from rig import Failed, Node, Process, Redis, until

NODES_FP = "{ff:nodes}:fp"


def cli(server, *words):
    return subprocess.run(["redis-cli", "-p", str(server.port), *map(str, words)],
                          capture_output=True, text=True, check=True).stdout.strip()


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def tar_of(path, parts):
    with tarfile.open(path, "w") as tar:
        for name, body in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


class Hostile:
    """The parts of the check that it gets, and the modules of the scripts."""

    def __init__(self, root, binary, folder, run, check):
        self.root, self.binary, self.folder, self.run, self.check = root, binary, folder, run, check
        sys.path.insert(0, str(root / "scripts/backups"))
        import archive
        import copying
        import servers
        self.archive, self.copying, self.servers = archive, copying, servers

    def all(self, archive):
        self.manifests(archive)
        self.before_the_first_key(archive)
        self.words_of_redis()
        self.begun_again()
        self.prefixes()
        self.rights()
        self.odd_addresses()

    def wrong(self, act, *words):
        """What a call into the scripts says is wrong."""
        try:
            act(*words)
        except (self.servers.Wrong, self.archive.Damaged) as told:
            return str(told)
        return "nothing"

    def manifests(self, archive):
        """Every single bit that is another, and every field."""
        whole, parts = archive.read_bytes(), members(archive)
        spoilt = self.folder / "spoilt.tar"
        seen, believed = 0, []
        for name in ("manifest.json", "manifest.sha256"):
            start = whole.index(parts[name])
            # The name behind the sum says nothing.
            length = 64 if name == "manifest.sha256" else len(parts[name])
            for at in range(start, start + length):
                spoilt.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
                with tempfile.TemporaryDirectory() as folder:
                    told = self.wrong(self.archive.read, spoilt, pathlib.Path(folder))
                seen += 1
                if told == "nothing":
                    believed.append(at - start)
        self.check("no byte of the manifest and its sum is believed when it is another", seen > 500 and not believed,
                   (seen, believed))

        def with_manifest(change):
            manifest = json.loads(parts["manifest.json"])
            change(manifest)
            text = json.dumps(manifest).encode()
            tar_of(spoilt, {**parts, "manifest.json": text,
                            "manifest.sha256": f"{hashlib.sha256(text).hexdigest()}  manifest.json\n".encode()})
            return self.run("restore", spoilt, "--check", code=1)

        def of(manifest):
            return manifest["deployments"][0]

        for what, change, words in (
            ("no time", lambda m: m.pop("made"), "made in its manifest.json is null"),
            ("no prefix", lambda m: m.pop("prefix"), "prefix in its manifest.json is null"),
            ("an empty prefix", lambda m: m.update(prefix=""), "its prefix is empty"),
            ("no list of parts", lambda m: m.update(parts=[1]), "parts in its manifest.json is [1]"),
            ("a part without a length", lambda m: m["parts"]["redis-0-0.rdb"].pop("bytes"), "redis-0-0.rdb: bytes in"),
            ("a part elsewhere", lambda m: m["parts"].update({"..": {}}), "'..' is no name of a part"),
            ("no deployment", lambda m: m.update(deployments=[]), "it names no deployment"),
            ("no file", lambda m: of(m).update(files=[]), "deployment 0: it has no file"),
            ("a file that is no part", lambda m: of(m)["files"][0].update(file="/etc/hostname"), "/etc/hostname is none of its parts"),
            ("a file twice", lambda m: of(m)["files"].append(of(m)["files"][0]), "one part is named twice"),
            ("a database as text", lambda m: of(m).update(database="0"), 'deployment 0: database in its manifest.json is "0"'),
            ("another form", lambda m: of(m).update(form="redis-clustes"), "'redis-clustes' is no form of redis.url"),
            ("no count of keys", lambda m: of(m)["files"][0].pop("keys"), "deployment 0: keys in its manifest.json is null"),
            ("a manifest that is a list", lambda m: (m["parts"].clear(), m.clear()), "its manifest.json cannot be read"),
        ):
            said = with_manifest(change)
            self.check(f"a manifest is refused for {what}", words in said, said)
        tar_of(spoilt, {**parts, "more.rdb": b"x"})
        said = self.run("restore", spoilt, "--check", code=1)
        self.check("a part that nothing names is told", "it has more.rdb, which its manifest.json does not name" in said, said)

    def before_the_first_key(self, archive):
        """Whatever is refused leaves the target empty."""
        there = self.folder / "there.toml"
        there.write_text("x")
        for what, arguments, more, words in (
            ("a configuration that is there", (), ("--config-to", there), "is there already: name another file. Nothing was written"),
            ("PostgreSQL that was not saved", (), ("--postgres", "postgresql://127.0.0.1:1/x"), "no PostgreSQL was saved"),
            ("a target that throws keys away", ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), (),
             "has maxmemory-policy allkeys-lru and would throw keys away"),
            ("a target without room", ("--maxmemory", "1mb"), (), "are needed: raise maxmemory. Nothing was written"),
            ("another prefix", (), ("--prefix", "prod"), "redis.prefix was ff and is prod"),
        ):
            target = Redis(self.folder, f"first-{what.split()[-1]}", arguments)
            said = self.run("restore", archive, "--redis", target.url, *more, code=1)
            self.check(f"refused before the first key: {what}", words in said and cli(target, "DBSIZE") == "0", said)
            target.kill()
        target = Redis(self.folder, "first-database")
        said = self.run("restore", archive, "--redis", f"{target.url}/1", code=1)
        self.check("another database is told", "database 0 was saved and 1 is named" in said, said)
        target.kill()

    def words_of_redis(self):
        """Each refusal is told as what it is."""
        source, target = Redis(self.folder, "words-source"), Redis(self.folder, "words-target")
        reading, writing = (self.servers.redis.Redis(port=server.port) for server in (source, target))
        for number in range(300):
            reading.set(f"ff:{number}", os.urandom(1000))
        entries = list(self.copying.saved(reading, list(reading.scan_iter())))
        self.copying.put(writing, entries, False)
        said = self.wrong(self.copying.put, writing, entries[:1], False)
        self.check("BUSYKEY is somebody else", "got a key by somebody else meanwhile" in said, said)
        writing.delete("ff:7")
        lost = self.copying.missing(reading, writing, "ff")
        self.check("a key that the target lost is found", lost == (1, "ff:7"), lost)
        writing.config_set("maxmemory", "1mb")
        said = self.wrong(self.copying.put, writing, entries, True)
        self.check("OOM is a full target", "the target is full" in said, said)
        writing.config_set("maxmemory", "0")
        writing.flushdb()
        writing.set(NODES_FP, "of a node")
        said = self.wrong(self.copying.begin, writing, "ff", b"mark")
        self.check("a node that was faster is told", "a node began to use the target meanwhile" in said, said)
        ended = list(self.copying.saved(GoneMeanwhile(), [b"ff:ends"]))
        self.check("a key that ends between two questions is not kept for ever", not ended, ended)
        source.kill()
        target.kill()

    def begun_again(self):
        """A restore is broken off, a node starts, and it is begun again."""
        was = Redis(self.folder, "again-was")
        node = Node(self.binary, self.folder, "node-again", was.url)
        until("it has agreed with Redis", lambda: cli(was, "EXISTS", NODES_FP) == "1")
        node.stop()
        filling = self.servers.redis.Redis(port=was.port).pipeline(transaction=False)
        for number in range(40000):
            filling.set(f"ff:{{{number % 256}}}{{default:many:{number}}}:l", random.randbytes(50))
        filling.execute()
        archive, count = self.folder / "again.tar", int(cli(was, "DBSIZE"))
        said = self.run("backup", "--redis", was.url, "--to", archive)
        self.check("a backup says how many keys it has", f": {count} keys, " in said, said)
        now = Redis(self.folder, "again-now")
        running = Process(self.folder, "broken-off", [sys.executable, self.root / "scripts/restore", archive, "--redis", now.url])
        running.until("has copied some", lambda: int(cli(now, "DBSIZE")) > 1000)
        running.process.send_signal(signal.SIGTERM)
        running.process.wait()
        self.check("it was broken off in the middle", 1000 < int(cli(now, "DBSIZE")) < count, cli(now, "DBSIZE"))
        try:
            Node(self.binary, self.folder, "node-early", now.url)
            raise Failed("a node is ready on the half of what was saved")
        except Failed as failed:
            said = str(failed)
        self.check("a node that starts meanwhile ends with 64 and says why",
                   "ended with 64" in said and self.copying.MARK in said, said)
        said = self.run("restore", archive, "--redis", now.url, code=1)
        self.check("the second try is told of --again", "begin it again with --again" in said, said)
        said = self.run("restore", self.folder / "fanfare.tar", "--again", "--redis", now.url, code=1)
        self.check("another file is refused", "has a part of another backup" in said, said)
        said = self.run("restore", archive, "--again", "--redis", now.url)
        self.check("the second try ends well", f": {count} keys" in said and int(cli(now, "DBSIZE")) == count, said)
        Node(self.binary, self.folder, "node-again", now.url).stop()
        self.check("a node starts on it", True)
        for server in (was, now):
            server.kill()

    def prefixes(self):
        """Nodes with a prefix of their own, a configuration beside its variables, and a Redis of nobody."""
        was, now = Redis(self.folder, "prefix-was"), Redis(self.folder, "prefix-now")
        node = Node(self.binary, self.folder, "node-prod", was.url, {"FANFARE_REDIS__PREFIX": "prod"})
        node.publish("orders:1", 1)
        archive = self.folder / "prod.tar"
        said = self.run("backup", "--redis", was.url, "--to", archive, code=1)
        self.check("a backup of another prefix is refused and told it",
                   "no node with the prefix ff has used" in said and "--prefix prod" in said and not archive.exists(), said)
        said = self.run("backup", "--redis", now.url, "--to", archive, code=1)
        self.check("a Redis that nobody has used is refused", "With --empty it is saved" in said, said)
        config, variables = self.folder / "plain.toml", self.folder / "fanfare.env"
        config.write_text('[redis]\nprefix = "prod"\n')
        said = self.run("backup", "--config", config, "--to", archive, code=1)
        self.check("a configuration without a Redis is told of --env-file", "or --env-file FILE" in said, said)
        variables.write_text(f'# of systemd\nFANFARE_ENV=production\nFANFARE_REDIS__URL="{was.url}"\n')
        self.run("backup", "--config", config, "--env-file", variables, "--to", archive)
        node.kill()
        said = self.run("restore", archive, "--redis", now.url, code=1)
        self.check("a restore tells the prefix", "redis.prefix was prod and is ff" in said, said)
        self.run("restore", archive, "--redis", now.url, "--prefix", "prod")
        self.check("a restore by --prefix has the topic", "orders:1" in cli(now, "KEYS", "prod:*"), cli(now, "KEYS", "*"))
        variables.write_text("FANFARE_REDIS__URL\n")
        said = self.run("backup", "--env-file", variables, "--to", self.folder / "none.tar", code=1)
        self.check("a line that is no variable is told", "fanfare.env:1 is no NAME=VALUE" in said, said)
        for server in (was, now):
            server.kill()

    def rights(self):
        """A user with the line of docs/redis.md, and what docs/deployment.md adds."""
        line = re.search(r"^ACL SETUSER fanfare reset .*$", (self.root / "docs/redis.md").read_text(), re.MULTILINE)[0]
        page = (self.root / "docs/deployment.md").read_text()
        added = {what: re.search(rf"^ACL SETUSER fanfare (.*?) +# for a {what}$", page, re.MULTILINE)[1].split()
                 for what in ("backup", "restore")}
        base = line.replace(">PASSWORD", ">pw").split()[3:]
        was, now = Redis(self.folder, "rights-was"), Redis(self.folder, "rights-now")
        for server in (was, now):
            cli(server, "ACL", "SETUSER", "fanfare", *base)
        node = Node(self.binary, self.folder, "node-rights", was.url)
        node.publish("orders:1", 1)
        archive = self.folder / "rights.tar"
        as_user = [f"redis://fanfare:pw@127.0.0.1:{server.port}" for server in (was, now)]
        self.run("backup", "--redis", as_user[0], "--to", archive, code=1)
        cli(was, "ACL", "SETUSER", "fanfare", *added["backup"])
        self.run("backup", "--redis", as_user[0], "--to", archive)
        node.kill()
        said = self.run("restore", archive, "--redis", as_user[1], code=1)
        self.check("a right that is missing is told", "a restore needs +restore" in said, said)
        cli(now, "ACL", "SETUSER", "fanfare", *added["restore"])
        self.run("restore", archive, "--again", "--redis", as_user[1])
        self.check("the users of the page can save and restore", "orders:1" in cli(now, "KEYS", "ff:*"))
        for server in (was, now):
            server.kill()

    def odd_addresses(self):
        said = self.run("backup", "--redis", "redis://127.0.0.1:x", "--to", self.folder / "none.tar", code=1)
        self.check("a port that is none is told", "127.0.0.1:x in redis.url is no host" in said, said)
        silent = Redis(self.folder, "silent")
        os.kill(silent.process.pid, signal.SIGSTOP)
        self.servers.SILENCE_S, began = 1, time.monotonic()
        deployment = self.servers.Deployment(silent.url, self.servers.Access())
        said = self.wrong(deployment.masters)
        self.check("a Redis that hangs is told", "cannot be asked: Timeout" in said and time.monotonic() - began < 10, said)
        silent.kill()
        plain, environment = self.servers.postgres_access("postgresql://me:a%40b@host:1/db")
        self.check("a password of PostgreSQL stands in no list of processes",
                   (plain, environment["PGPASSWORD"]) == ("postgresql://me@host:1/db", "a@b"), plain)


class GoneMeanwhile:
    """A source whose key ends between DUMP and PEXPIRETIME."""

    def pipeline(self, transaction):
        return self

    def dump(self, key):
        pass

    def pexpiretime(self, key):
        pass

    def execute(self):
        return [b"value", -2]
