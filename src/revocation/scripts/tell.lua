#!lua flags=allow-oom
-- Says how far a node has read, also where memory is full: without it a revocation is not promised.
-- KEYS 1 what the node said   ARGV 1 what it says 2 for how long that can be read, ms
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
