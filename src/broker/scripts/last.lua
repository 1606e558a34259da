-- The newest position, remembered on.
-- KEYS 1 ...:s 2 ...:l 3 ...:c (lives as long as ...:l)
-- ARGV 1 life of ...:l ms
-- Returns the position or false
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[1])
return newest(KEYS[1], KEYS[2])
