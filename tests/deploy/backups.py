"""A backup is taken, everything is lost, and it is restored; then everything that must be refused.

    backups.py ROOT BINARY FOLDER
"""

import asyncio
import glob
import json
import os
import pathlib
import subprocess
import sys
import time

from websockets.asyncio.client import connect

import backups_hostile
import backups_revoked
from rig import API_KEY, Failed, Node, Process, Redis, free_port, http, until

ROOT, BINARY, FOLDER = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
LATER_MS = 3600_000
checked = []


def check(what, is_so, seen=""):
    if not is_so:
        raise Failed(f"{what}: {seen}")
    checked.append(what)
    print(f"  {what}", flush=True)


def run(script, *words, code=0, more=None):
    """One of the scripts, with `more` in its environment. What it said."""
    said = subprocess.run([sys.executable, ROOT / "scripts" / script, *map(str, words)],
                          capture_output=True, text=True, check=False, env={**os.environ, **(more or {})})
    told = said.stdout + said.stderr
    if said.returncode != code or "Traceback" in told:
        raise Failed(f"{script} {' '.join(map(str, words))} ended with {said.returncode}, not {code}: {told}")
    return told


async def session(node, user, **command):
    """Opens a session. Its socket, and its welcome."""
    socket = await connect(f"ws://{node.address}/v1/connect?user={user}&wait=1",
                           subprotocols=["fanfare.v1.json"], compression=None, proxy=None)
    await socket.send(json.dumps({"type": "connect", "id": 1, **command}))
    while True:
        event = json.loads(await socket.recv())
        if event["type"] == "welcome":
            return socket, event


async def resume(node, topic, position, count=0):
    """What a client is told that comes back with a position, and the first messages that follow."""
    socket, welcome = await session(node, "reader", positions={topic: position})
    messages = []
    while len(messages) < count:
        event = json.loads(await asyncio.wait_for(socket.recv(), 10))
        if event["type"] == "message" and event["topic"] == topic:
            messages.append(event["data"])
    await socket.close()
    return welcome["topics"][topic], messages


async def acknowledge(node, user, position):
    socket, _ = await session(node, user)
    await socket.send(json.dumps({"type": "ack", "id": 2, "position": position}))
    while json.loads(await socket.recv()).get("id") != 2:
        pass
    await socket.close()


def inbox(node, user):
    return json.loads(http("GET", f"{node.api}/v1/users/{user}/inbox", key=API_KEY)[1])


def queued(node):
    """Entries of the durable queue, as Redis has them."""
    answer = json.loads(http("GET", f"{node.api}/v1/queue?partitions=true", key=API_KEY)[1])
    return sum(partition["delayed"] for partition in answer["partitions"])


def fill(node):
    """A topic, an inbox with a cursor, and an entry of the queue that is not due."""
    positions = [node.publish("orders:1", number) for number in range(1, 51)]
    for number in range(10):
        http("POST", f"{node.api}/v1/publish", {"user": "alice", "data": number}, API_KEY)
    letters = inbox(node, "alice")["publications"]
    asyncio.run(acknowledge(node, "alice", letters[4]["position"]))
    due = int(time.time() * 1000) + LATER_MS
    status, body = http("POST", f"{node.api}/v1/queue", {"topic": "orders:1", "data": "later", "not_before": due}, API_KEY)
    if status != 202:
        raise Failed(f"the queue took nothing: {status} {body}")
    return positions


def keys_below(port):
    """All keys but those of nodes, with their types."""
    listed = subprocess.run(["redis-cli", "-p", str(port), "--scan"], capture_output=True, text=True, check=True)
    return {key for key in listed.stdout.split() if not key.startswith(("{ff:nodes}", "ff:part:"))}


def nodes_keys(port):
    """How many keys there are of nodes, which `keys_below` leaves out."""
    listed = subprocess.run(["redis-cli", "-p", str(port), "--scan"], capture_output=True, text=True, check=True)
    return len([key for key in listed.stdout.split() if key.startswith(("{ff:nodes}", "ff:part:"))])


def one_server(archive):
    """The way that most will go: one Redis, a node, the loss of both."""
    was = Redis(FOLDER, "was")
    node = Node(BINARY, FOLDER, "node-was", was.url)
    positions = fill(node)
    before, waiting = inbox(node, "alice"), queued(node)
    subprocess.run(["redis-cli", "-p", str(was.port), "SET", "other:1", "x"], check=True, stdout=subprocess.DEVNULL)
    kept = keys_below(was.port) - {"other:1"}
    config = FOLDER / "fanfare.toml"
    config.write_text(f'[redis]\nurl = "{was.url}"\n')
    run("backup", "--config", config, "--to", archive)
    check("a backup is for its owner alone", archive.stat().st_mode & 0o077 == 0, oct(archive.stat().st_mode))
    late = [node.publish("orders:1", number) for number in range(51, 61)]
    node.kill()
    was.kill()

    now = Redis(FOLDER, "now")
    said = run("restore", archive, "--redis", now.url, "--config-to", FOLDER / "restored.toml")
    check("keys of other prefixes are left out", "1 keys of other prefixes are left out" in said, said)
    check("what was copied is counted", f"deployment without a name: {len(kept) + nodes_keys(now.port)} keys" in said, said)
    check("every key is there again", keys_below(now.port) == kept, keys_below(now.port) ^ kept)
    check("the configuration is the same", (FOLDER / "restored.toml").read_text() == config.read_text())
    node = Node(BINARY, FOLDER, "node-now", now.url)
    joined, messages = asyncio.run(resume(node, "orders:1", positions[29], 20))
    check("a position of before resumes", joined["recovered"] and messages == list(range(31, 51)), (joined, messages))
    joined, _ = asyncio.run(resume(node, "orders:1", positions[-1]))
    check("the last position that was saved resumes", joined["recovered"], joined)
    joined, _ = asyncio.run(resume(node, "orders:1", late[-1]))
    check("a later position is told: failover", not joined["recovered"] and joined["gap_reason"] == "failover", joined)
    after = inbox(node, "alice")
    check("the cursor is the same", after == before, (before, after))
    check("the queue has what waited", queued(node) == waiting == 1, (waiting, queued(node)))
    check("publications go on above the last position", node.publish("orders:1", 61) > positions[-1])
    said = run("restore", archive, "--redis", now.url, code=1)
    check("a Redis that is not empty is refused", "is not empty: it has" in said and "Nothing was written" in said, said)
    node.stop()
    now.kill()


def refusals(archive):
    """Each with its exact words, and an empty Redis that stays empty."""
    target = Redis(FOLDER, "target")
    whole = archive.read_bytes()
    broken = FOLDER / "broken.tar"

    def refused(what, words, *more, redis=target.url):
        said = run("restore", broken, "--redis", redis, *more, code=1)
        check(what, words in said, said)

    at = whole.index(b"REDIS0") + 400
    broken.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    refused("one bit that is another is found", "is damaged: redis-0-0.rdb has the SHA-256")
    broken.write_bytes(whole[:at])
    refused("an archive that was cut off is found", "is damaged: it ends or cannot be read in redis-0-0.rdb")
    broken.write_bytes(b"no archive at all" * 100)
    refused("what is no archive is told", "is no backup: it is no tar file")
    subprocess.run(["tar", "-cf", broken, "-C", FOLDER, "fanfare.toml"], check=True)
    refused("a tar of something else is told", "is no backup: it has no manifest.json")
    broken.write_bytes(whole.replace(b'"format": 2', b'"format": 9'))
    refused("another format is told", "has format 9, this script reads 2")
    broken.write_bytes(whole)
    refused("a Redis that is away is told", "cannot be asked", redis=f"redis://127.0.0.1:{free_port()}")
    refused("another number of deployments is told", "1 deployments were saved and 2 are named", "--redis", target.url)
    refused("another name is told", "'east' is named", redis=f"{target.url}?name=east")
    refused("an unknown form is told", "mysql:// is no form of redis.url", redis="mysql://127.0.0.1")
    said = run("restore", broken, "--redis", target.url, "--server", "/nowhere/redis-server", code=1)
    check("a missing redis-server is told", "is missing: install it (Debian: redis-server)", said)
    check("whatever was refused wrote nothing", keys_below(target.port) == set())
    said = run("backup", "--redis", target.url, "--to", archive, code=1)
    check("no backup is written over", "is there already" in said, said)
    said = run("backup", "--redis", f"redis://127.0.0.1:{free_port()}", "--to", FOLDER / "none.tar", code=1)
    check("a backup of nothing is refused", "cannot be asked" in said and not (FOLDER / "none.tar").exists(), said)
    replica = Redis(FOLDER, "replica", ["--replicaof", "127.0.0.1", str(target.port)])
    said = run("backup", "--redis", replica.url, "--to", FOLDER / "none.tar", code=1)
    check("a replica is refused", "is a replica: name its master" in said, said)
    replica.kill()
    locked = Redis(FOLDER, "locked", ["--requirepass", "secret"])
    said = run("backup", "--redis", f"redis://:wrong@127.0.0.1:{locked.port}", "--to", FOLDER / "none.tar", code=1)
    check("a wrong password is told and not shown", "refuses user or password" in said and ":wrong@" not in said, said)
    run("backup", "--redis", f"redis://:secret@127.0.0.1:{locked.port}", "--empty", "--to", FOLDER / "locked.tar")
    check("a password in the URL is used", (FOLDER / "locked.tar").exists())
    locked.kill()
    target.kill()


def cluster(name):
    """A Redis Cluster of three masters."""
    masters = []
    for number in range(3):
        folder = FOLDER / f"{name}-{number}"
        folder.mkdir()
        masters.append(Redis(folder, f"{name}-{number}", ["--cluster-enabled", "yes"]))
    places = [f"127.0.0.1:{master.port}" for master in masters]
    subprocess.run(["redis-cli", "--cluster", "create", *places, "--cluster-yes"], check=True, stdout=subprocess.DEVNULL)
    state = ["redis-cli", "-p", str(masters[-1].port), "CLUSTER", "INFO"]
    until("the cluster is well", lambda: "cluster_state:ok" in subprocess.run(state, capture_output=True, text=True).stdout)
    return masters, f"redis-cluster://{','.join(places)}"


def in_a_cluster():
    """Three masters, each saved alone, into three others."""
    archive = FOLDER / "cluster.tar"
    was, url = cluster("was")
    node = Node(BINARY, FOLDER, "node-cluster-was", url)
    positions = fill(node)
    for number in range(60):
        node.publish(f"room:{number}", number)
    before = inbox(node, "alice")
    said = run("backup", "--redis", url, "--to", archive)
    check("each master of a cluster is saved", said.count("saved Redis at") == 3, said)
    node.kill()
    kept = set().union(*(keys_below(master.port) for master in was))
    for master in was:
        master.kill()
    now, url = cluster("now")
    said = run("restore", archive, "--redis", f"redis://127.0.0.1:{now[0].port}", code=1)
    check("a cluster is not restored into one server", "a Redis Cluster is restored into a Redis Cluster" in said, said)
    run("restore", archive, "--redis", url)
    found = set().union(*(keys_below(master.port) for master in now))
    check(f"every key of the cluster is there again ({len(kept)})", found == kept and len(kept) > 100, found ^ kept)
    check("each master has some", all(keys_below(master.port) for master in now))
    node = Node(BINARY, FOLDER, "node-cluster-now", url)
    joined, messages = asyncio.run(resume(node, "orders:1", positions[29], 20))
    check("a position in a cluster resumes", joined["recovered"] and messages == list(range(31, 51)), (joined, messages))
    check("the cursor in a cluster is the same", inbox(node, "alice") == before)
    node.stop()
    for master in now:
        master.kill()


def behind_sentinels():
    """The master that sentinels name is saved."""
    master, port = Redis(FOLDER, "watched"), free_port()
    config = FOLDER / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master.port} 1\n")
    sentinel = Process(FOLDER, "sentinel", ["redis-server", config, "--sentinel"])
    sentinel.until("watches", lambda: "+monitor master main" in sentinel.said())
    subprocess.run(["redis-cli", "-p", str(master.port), "SET", "ff:fp", "x"], check=True, stdout=subprocess.DEVNULL)
    url = f"redis-sentinel://127.0.0.1:{port}?master=main"
    said = run("backup", "--redis", url, "--to", FOLDER / "watched.tar")
    check("the master behind sentinels is saved", f"saved Redis at 127.0.0.1:{master.port}" in said, said)
    said = run("backup", "--redis", f"redis-sentinel://127.0.0.1:{port}?master=other", "--to", FOLDER / "none.tar", code=1)
    check("a master that no sentinel knows is told", "no sentinel of other says where its master is" in said, said)
    sentinel.kill()
    master.kill()


def in_two_deployments():
    """Each is saved and restored under its name."""
    archive = FOLDER / "two.tar"

    def pair(name):
        servers = [Redis(FOLDER, f"{name}-{place}") for place in ("east", "west")]
        return servers, [f"{server.url}?name={place}" for server, place in zip(servers, ("east", "west"), strict=True)]

    was, urls = pair("before")
    node = Node(BINARY, FOLDER, "node-two-was", urls[0], {"FANFARE_REDIS__SHARDS": urls[1]})
    last = {number: node.publish(f"room:{number}", number) for number in range(40)}
    run("backup", "--redis", urls[0], "--redis", urls[1], "--to", archive)
    node.kill()
    for server in was:
        server.kill()
    now, urls = pair("after")
    said = run("restore", archive, "--redis", urls[1], "--redis", urls[0], code=1)
    check("deployments in another order are refused", "give the same" in said, said)
    run("restore", archive, "--redis", urls[0], "--redis", urls[1])
    check("both deployments have topics", all("room:" in " ".join(keys_below(server.port)) for server in now))
    node = Node(BINARY, FOLDER, "node-two-now", urls[0], {"FANFARE_REDIS__SHARDS": urls[1]})
    resumed = [asyncio.run(resume(node, f"room:{number}", position))[0]["recovered"] for number, position in last.items()]
    check("all topics of both deployments resume", all(resumed), resumed)
    node.stop()
    for server in now:
        server.kill()


def postgres():
    """A database of its own, dumped and restored."""
    binaries = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))[-1]).parent
    data, port = FOLDER / "postgres", free_port()
    as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data.mkdir(mode=0o700)
    if as_owner:
        subprocess.run(["chown", "postgres", data], check=True)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([*as_owner, binaries / "initdb", "-D", data, "-U", "outbox", "-A", "trust"], **quiet)
    options = f"-p {port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*as_owner, binaries / "pg_ctl", "-D", data, "-o", options, "-l", data / "log", "-w", "start"], **quiet)
    try:
        url = f"postgresql://outbox@127.0.0.1:{port}"
        for name in ("was", "now"):
            subprocess.run(["psql", "-qc", f"CREATE DATABASE {name}", f"{url}/postgres"], **quiet)
        make = "CREATE TABLE outbox (id bigserial PRIMARY KEY, body text); INSERT INTO outbox (body) SELECT 'row ' || n FROM generate_series(1, 1000) n"
        subprocess.run(["psql", "-qc", make, f"{url}/was"], **quiet)
        source = Redis(FOLDER, "beside")
        archive = FOLDER / "postgres.tar"
        run("backup", "--redis", source.url, "--empty", "--postgres", f"{url}/was", "--to", archive)
        run("restore", archive, "--postgres", f"{url}/now")
        asked = subprocess.run(["psql", "-tAc", "SELECT count(*), max(id) FROM outbox", f"{url}/now"], capture_output=True, text=True, check=True)
        check("the rows are there again", asked.stdout.strip() == "1000|1000", asked.stdout)
        said = run("restore", archive, "--postgres", f"{url}/now", code=1)
        check("a database that is not empty is refused", "the database is not empty: it has 1 tables" in said, said)
        source.kill()
    finally:
        subprocess.run([*as_owner, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)


def main():
    archive = FOLDER / "fanfare.tar"
    try:
        one_server(archive)
        refusals(archive)
        in_a_cluster()
        backups_revoked.Revoked(BINARY, FOLDER, run, check).all()
        behind_sentinels()
        in_two_deployments()
        postgres()
        backups_hostile.Hostile(ROOT, BINARY, FOLDER, run, check).all(archive)
    except Failed as failed:
        print(f"check-backup: {failed}", file=sys.stderr)
        return 1
    print(f"{len(checked)} claims about backup and restore hold")
    return 0 if checked else 1


if __name__ == "__main__":
    sys.exit(main())
