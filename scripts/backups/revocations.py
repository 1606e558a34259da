"""Carries revocations from one Redis into another, each merged by maximum, so that nothing which was revoked
is let in again. For scripts/restore and scripts/carry-revocations. Nodes may run on both meanwhile."""

import dataclasses
import pathlib

from servers import Wrong, redis, text

BATCH = 500
# As many as nodes write back (src/revocation/mod.rs, ENTRIES_BACK_MAX).
ENTRIES_MAX = 204_000
# Numbers of Lua are exact below this.
NUMBERS = 1 << 53
MERGE = (pathlib.Path(__file__).resolve().parent / "merge.lua").read_text()


@dataclasses.dataclass
class Carried:
    """What became of the entries."""

    read: int = 0
    changed: int = 0
    ended: int = 0
    unreadable: int = 0

    def __str__(self):
        words = f"{self.read} revocations, {self.changed} of them new or stronger in the target"
        words += f", {self.ended} had ended" if self.ended else ""
        return words + (f", {self.unreadable} cannot be read and were left out" if self.unreadable else "")


def keys(prefix):
    """Entries, names by change, names by end, and what is known of all (docs/redis-inside.md)."""
    return [f"{prefix}:{{rv}}:{part}" for part in ("h", "at", "u", "m")]


def is_one(key, prefix):
    """Whether a key is of revocations."""
    return key.startswith(f"{prefix}:{{rv}}:".encode())


def are_in(client, prefix):
    """Whether there are any."""
    return any(client.exists(key) for key in keys(prefix))


def marked(value):
    """Before which second, until when; None: it is no entry."""
    words = value.split(b" ")
    if len(words) != 3 or not all(word.isdigit() and int(word) < NUMBERS for word in words):
        return None
    return int(words[0]), int(words[1])


def entries(client, prefix, carried):
    """Name, second and end of each."""
    try:
        for name, value in client.hscan_iter(keys(prefix)[0], count=1000):
            mark = marked(value)
            carried.unreadable += mark is None
            if mark:
                carried.read += 1
                yield name, *mark
    except redis.ResponseError as refused:
        raise Wrong(f"revocations cannot be read, {keys(prefix)[0]} is of another type or may not be read: "
                    f"{refused}") from None


def carry(source, source_prefix, writer, prefix):
    """Merges all of one into the other, and looks for each of them there."""
    carried = Carried()
    kept = (source.hget(keys(source_prefix)[3], "kept") or b"0").decode()
    kept = kept if kept.isdecimal() and int(kept) < NUMBERS else "0"
    batch = []
    for entry in entries(source, source_prefix, carried):
        batch.append(entry)
        if len(batch) == BATCH:
            merge(writer, prefix, kept, batch, carried)
            batch = []
    # Once at the least: what is known of all is there then.
    merge(writer, prefix, kept, batch, carried)
    return carried


def merge(writer, prefix, kept, batch, carried):
    words = [word for entry in batch for word in entry]
    try:
        changed, ended = writer.eval(MERGE, 4, *keys(prefix), kept, ENTRIES_MAX, *words)
    except redis.ResponseError as refused:
        if "FULL" in str(refused):
            raise Wrong(f"the target has room for {ENTRIES_MAX} revocations and would have more: what was carried "
                        "so far holds, wait until some have ended and repeat it") from None
        raise Wrong(f"the target refuses revocations: {refused}. A user needs +eval beside what a node needs") from None
    carried.changed, carried.ended = carried.changed + changed, carried.ended + ended
    judge(writer, prefix, batch, ended)


def judge(writer, prefix, batch, ended):
    """That each is there and as strong."""
    if not batch:
        return
    found = writer.hmget(keys(prefix)[0], [name for name, _, _ in batch])
    weaker = [name for (name, second, _), value in zip(batch, found, strict=True)
              if (marked(value or b"") or (0, 0))[0] < second]
    if len(weaker) > ended:
        raise Wrong(f"{len(weaker)} revocations are not in the target, for example {text(weaker[0])}: somebody "
                    "deletes them; repeat it")
