-- All members, and the position to which the list belongs.
-- KEYS 1 ...:s 2 ...:l 3 ...:h, all of the presence topic
-- Returns {the position, the values of ...:h}
return {newest(KEYS[1], KEYS[2]) or '0-0', redis.call('HVALS', KEYS[3])}
