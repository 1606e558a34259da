"""Revocations in a restore: those of the target are never made weaker by those of the backup.

Of each entry the stronger part stays, as in the nodes' own script (src/revocation/scripts/add.lua). So
a target may have them, and nothing else: whoever was put out after the backup stays out."""

import hashlib

PRINTS = 1 << 48
BATCH = 1000


def keys_of(prefix):
    """Entries, names by change, names by end, and what is known of all."""
    return [f"{prefix}:{{rv}}:{part}".encode() for part in ("h", "at", "u", "m")]


def print_of(name, issued_before, until_ms):
    text = b"%s %d %d" % (name, issued_before, until_ms)
    return int(hashlib.sha1(text).hexdigest()[:12], 16)


def stronger(saved, present):
    """Of each entry the later times; each is (issued before, end, number)."""
    both = {name: tuple(int(part) for part in value.split()) for name, value in present.items()}
    for name, value in saved.items():
        entry = tuple(int(part) for part in value.split())
        both[name] = tuple(map(max, entry, both.get(name, entry)))
    return both


def merge(source, writer, prefix):
    """Merges what the source has into the target. Returns how many entries that has then."""
    entries, changes, ends, about = keys_of(prefix)
    both = stronger(source.hgetall(entries), writer.hgetall(entries))
    known = [client.hgetall(about) for client in (source, writer)]
    latest = {field: max(int(one.get(field, 0)) for one in known) for field in (b"last", b"forgot")}
    both = {name: entry for name, entry in both.items() if entry[1] > latest[b"forgot"]}
    number = max([latest[b"last"], *(entry[2] for entry in both.values())])
    total = sum(print_of(name, entry[0], entry[1]) for name, entry in both.items()) % PRINTS
    # Numbers stay below 2^53, up to which Redis compares them exactly.
    in_order = sorted(both.items(), key=lambda item: item[1][2])
    written = writer.pipeline(transaction=False)
    for key in (entries, changes, ends):
        written.delete(key)
    for place, (name, (issued_before, until_ms, _)) in enumerate(in_order, 1):
        written.hset(entries, name, f"{issued_before} {until_ms} {number + place}")
        written.zadd(changes, {name: number + place})
        written.zadd(ends, {name: until_ms})
        if place % BATCH == 0:
            written.execute()
    written.hset(about, mapping={"sum": total, "last": number + len(in_order), "forgot": latest[b"forgot"]})
    written.execute()
    return len(both)
