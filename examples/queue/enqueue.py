"""Hands a message to Fanfare's durable queue with one XADD, without its HTTP API (redis-py).

    enqueue.py redis://127.0.0.1:6379 high orders:7 '{"state": "paid"}'
    enqueue.py --partition orders:7 @alice
"""

import sys
import zlib

APP, PREFIX, PARTITIONS = "default", "ff", 256  # of the app, redis.prefix, redis.partitions
PRIORITIES = ("critical", "high", "normal", "low")


def partition(name):
    """The partition of a topic, or of a user's inbox as `@USER`."""
    return zlib.crc32(f"{APP}:{name}".encode()) % PARTITIONS


def enqueue(redis, priority, name, data, **more):
    """`data` is JSON text. Returns the entry's id once Redis has it."""
    if priority not in PRIORITIES:  # Nobody looks into a stream of another name.
        raise ValueError(f"the priority must be one of {', '.join(PRIORITIES)}, not {priority!r}")
    n = partition(name)
    target = {"user": name[1:]} if name[:1] == "@" and name != "@" else {"topic": name}
    entry = redis.xadd(f"{PREFIX}:q:{{{n}}}:{priority}", {**target, "data": data, **more})
    # Not needed: it is seen within a second without. In a Redis Cluster: spublish.
    redis.publish(f"{PREFIX}:{{{n}}}:bell", priority)
    return entry


if __name__ == "__main__":
    if sys.argv[1] == "--partition":
        for name in sys.argv[2:]:
            print(name, partition(name))
    else:
        import redis

        url, priority, name, data = sys.argv[1:]
        try:
            print(enqueue(redis.Redis.from_url(url, decode_responses=True), priority, name, data))
        except ValueError as error:
            sys.exit(str(error))
