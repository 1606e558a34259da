-- The newest position, remembered on by the `renew` that stands above, from the position on where that
-- is ahead of the clock.
-- KEYS 1 ...:s 2 ...:l 3 ...:c (lives as long as ...:l)
-- ARGV 1 life of ...:l ms
-- Returns the position or false
local stream, last, cursor = unpack(KEYS)
local id = newest(stream, last)
local life = ARGV[1] + (id and ahead(id) or 0)
renew(last, life)
renew(cursor, life)
return id
