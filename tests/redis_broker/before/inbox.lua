-- The state of an inbox. Pending is the number of the newest entry less that of the first one
-- above the cursor that is within age, plus one: append numbers the entries without holes.
-- KEYS 1 ...:s 2 ...:l 3 ...:c
-- ARGV 1 max age ms 2 most pending that are told
-- Returns {cursor or false, the last id, pending}
local cur = redis.call('GET', KEYS[3])
local from = floor(clock(), ARGV[1])
if cur and not above(from, cur) then from = '(' .. cur end
local first = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
local pending = 0
if first then
  local e = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  pending = math.min(tonumber(e[2][6]) - tonumber(first[2][6]) + 1, tonumber(ARGV[2]))
end
return {cur, newest(KEYS[1], KEYS[2]) or '0-0', pending}
