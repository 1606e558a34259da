-- The newest position, remembered on by the `renew` that stands above.
-- KEYS 1 ...:s 2 ...:l 3 ...:c (lives as long as ...:l)
-- ARGV 1 life of ...:l ms
-- Returns the position or false
local stream, last, cursor = unpack(KEYS)
local life = ARGV[1]
renew(last, life)
renew(cursor, life)
return newest(stream, last)
