-- The state of an inbox. Pending is the number of the newest entry less that of the first one
-- above the cursor that is within age, plus one: append numbers the entries without holes.
-- KEYS 1 ...:s 2 ...:l 3 ...:c
-- ARGV 1 max age ms 2 most pending that are told
-- Returns {cursor or false, the last id, pending}
local stream, last, cursor = unpack(KEYS)
local age, most = unpack(ARGV)
local read_to = redis.call('GET', cursor)
local from = within(age, clock())
if read_to and not above(from, read_to) then from = '(' .. read_to end
local first = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
local pending = 0
if first then
  local newest_entry = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  pending = math.min(field(newest_entry, 'n') - field(first, 'n') + 1, most)
end
return {read_to, newest(stream, last) or '0-0', pending}
