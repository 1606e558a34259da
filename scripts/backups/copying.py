"""Reads what a master had, and copies it into a target that is marked meanwhile. For scripts/restore.

The mark lies where nodes look for what they must have in common: one that starts meanwhile finds a text
that it cannot read, names it, and ends with 64. What was saved there comes last, when all keys have been
counted.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import subprocess
import tempfile
import time

import revocations
import servers
from servers import Wrong, redis

BATCH = 200
LOAD_S = 600
MARK = "scripts/restore has not ended"


def mark_of(archive_sum):
    """The same for each try with one archive, so that --again knows its own."""
    return f"{MARK}: it copies the backup {archive_sum[:16]}. Start nodes when it has, or begin it again with --again".encode()


@dataclasses.dataclass
class Part:
    """What one saved master has of a prefix."""

    keys: int = 0
    others: int = 0
    bytes: int = 0


@contextlib.contextmanager
def reader(program, rdb, database):
    """A client of a server that has read what was saved. The server ends with this."""
    if not shutil.which(program):
        raise Wrong(f"{program} is missing: install it (Debian: redis-server), or name another with --server")
    with tempfile.TemporaryDirectory(prefix="fanfare-restore-") as folder:
        socket, log = f"{folder}/socket", pathlib.Path(folder) / "log"
        command = [program, "--port", "0", "--unixsocket", socket, "--dir", str(rdb.parent),
                   "--dbfilename", rdb.name, "--save", "", "--appendonly", "no", "--logfile", str(log),
                   "--databases", str(max(16, database + 1))]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client = redis.Redis(unix_socket_path=socket, db=database)
            until_loaded(started, client, rdb, log, program)
            yield client
        finally:
            started.kill()
            started.wait()


def until_loaded(started, client, rdb, log, program):
    deadline = time.monotonic() + LOAD_S
    while True:
        if started.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            raise Wrong(f"{program} of this machine cannot read {rdb.name}, perhaps because it is older than "
                        f"the server that was saved (--server names another): {said[-1] if said else 'no word why'}")
        try:
            if not client.info("persistence")["loading"]:
                return
        except (redis.ConnectionError, redis.BusyLoadingError):
            pass
        if time.monotonic() > deadline:
            raise Wrong(f"{rdb.name} was not read within {LOAD_S} s")
        time.sleep(0.05)


def is_ours(key, prefix):
    """Whether a key belongs to nodes with this prefix: docs/redis-inside.md lists them."""
    ours = prefix.encode()
    return key.startswith(ours + b":") or key.startswith(b"{" + ours + b":")


def another(client, prefix):
    """A key that is not of revocations; None: there is no other."""
    found = (key for key in client.scan_iter(count=1000) if not revocations.is_one(key, prefix))
    return next(found, None)


def batches(source, prefix, part=None, without_revocations=False):
    """The keys of the prefix but the fingerprints, some at a time. `part` is told of all of them."""
    last, batch = {key.encode() for key in servers.fingerprints(prefix)}, []
    for key in source.scan_iter(count=1000):
        ours = is_ours(key, prefix)
        if part:
            part.keys, part.others = part.keys + ours, part.others + (not ours)
        if ours and key not in last and not (without_revocations and revocations.is_one(key, prefix)):
            batch.append(key)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def measured(source, prefix):
    """How much a saved master has, before any of it is copied."""
    part = Part()
    for _ in batches(source, prefix, part):
        pass
    memory = source.info("memory")
    used = memory["used_memory"] - memory["used_memory_startup"]
    # What others have in it takes no room in the target.
    part.bytes = used * part.keys // max(1, part.keys + part.others)
    return part


def pipeline(client):
    return client.pipeline() if isinstance(client, redis.cluster.RedisCluster) else client.pipeline(transaction=False)


def saved(source, keys):
    """Each key that has not ended: its value and its end in milliseconds, 0 for never."""
    asked = source.pipeline(transaction=False)
    for key in keys:
        asked.dump(key)
        asked.pexpiretime(key)
    answers = asked.execute()
    for key, value, ends_ms in zip(keys, answers[::2], answers[1::2], strict=True):
        # -2: it ended since it was listed, and -1: never, which RESTORE calls 0.
        if value is not None and ends_ms != -2:
            yield key, value, max(ends_ms, 0)


def put(writer, entries, replace):
    """Writes them. How many."""
    written, count = pipeline(writer), 0
    for key, value, ends_ms in entries:
        written.restore(key, ends_ms, value, replace=replace, absttl=ends_ms > 0)
        count += 1
    if count:
        try:
            written.execute()
        except redis.ResponseError as refused:
            raise Wrong(refusal(refused)) from None
    return count


def refusal(refused):
    """What the target refuses, by the word of its answer. Without the command, which has a message in it."""
    why = str(refused).rpartition("caused error: ")[2]
    if "BUSYKEY" in why:
        return f"the target got a key by somebody else meanwhile ({why}): stop what writes to it"
    if isinstance(refused, redis.exceptions.OutOfMemoryError) or "OOM" in why:
        return f"the target is full ({why}): raise its maxmemory"
    if isinstance(refused, redis.exceptions.NoPermissionError) or "NOPERM" in why:
        return f"the user of the target lacks a right ({why}): a restore needs +restore beside what a node needs"
    if "DUMP payload" in why or "Bad data format" in why:
        return f"the target cannot read a key ({why}): it is older than the server that was saved"
    return f"the target refuses a key: {why}"


def copy(source, writer, prefix, replace, without_revocations=False):
    """All keys of the prefix but the fingerprints. How many."""
    found = batches(source, prefix, without_revocations=without_revocations)
    return sum(put(writer, saved(source, keys), replace) for keys in found)


def kept_back(source, prefix):
    """The fingerprints that were saved."""
    return list(saved(source, [key.encode() for key in servers.fingerprints(prefix)]))


def missing(source, writer, prefix, without_revocations=False):
    """How many of the keys that have not ended are not in the target, and one of them."""
    count, example = 0, b""
    for keys in batches(source, prefix, without_revocations=without_revocations):
        asked = pipeline(writer)
        for key in keys:
            asked.exists(key)
        lost = [key for key, is_there in zip(keys, asked.execute(), strict=True) if not is_there]
        # One that ended meanwhile is not in its source either.
        lost = [key for key, _, _ in saved(source, lost)] if lost else []
        count, example = count + len(lost), lost[0] if lost else example
    return count, example.decode(errors="replace")


def begin(writer, prefix, mark):
    """Marks a target, and says where somebody was faster."""
    for key in servers.fingerprints(prefix):
        try:
            if not writer.set(key, mark, nx=True) and writer.get(key) != mark:
                raise Wrong(f"a node began to use the target meanwhile, {key} is there: stop all nodes, "
                            "and empty the target with FLUSHDB")
        except redis.ResponseError as refused:
            raise Wrong(refusal(refused)) from None


def judge_mark(writer, prefix, mark):
    """That nobody has used the target meanwhile."""
    for key in servers.fingerprints(prefix):
        if writer.get(key) != mark:
            raise Wrong(f"somebody changed {key} meanwhile: stop all nodes, empty the target with FLUSHDB and begin anew")


def end(writer, prefix, fingerprints):
    """Puts what was saved in the place of the mark."""
    put(writer, fingerprints, True)
    for key in {key.encode() for key in servers.fingerprints(prefix)} - {key for key, _, _ in fingerprints}:
        writer.delete(key)
