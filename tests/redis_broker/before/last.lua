-- The newest position, remembered on by the `renew` that stands above.
-- KEYS 1 ...:s 2 ...:l 3 ...:c (lives as long as ...:l)
-- ARGV 1 life of ...:l ms
-- Returns the position or false
renew(KEYS[2], ARGV[1])
renew(KEYS[3], ARGV[1])
return newest(KEYS[1], KEYS[2])
