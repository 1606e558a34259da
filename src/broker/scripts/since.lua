-- What came after a position.
-- KEYS 1 ...:s 2 ...:l
-- ARGV 1 since 2 max age ms 3 life of ...:l ms 4 most entries 5 most bytes of bodies
-- Returns {recovered '1'|'0', reason, the position after which the page begins, the last id, the page}
local since, now = ARGV[1], clock()
local count, bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local young = now - tonumber(string.match(since, '^%d+')) < tonumber(ARGV[3])
local lost = young and 'failover' or 'retention'
local last = newest(KEYS[1], KEYS[2])
if not last then
  if since == '0-0' then return {'1', '', '0-0', '0-0', {}} end
  return {'0', lost, '0-0', '0-0', {}}
end
if since == last then return {'1', '', last, last, {}} end
if above(since, last) then return {'0', 'failover', last, last, {}} end
local old = redis.call('XRANGE', KEYS[1], floor(now, ARGV[2]), '+', 'COUNT', 1)[1]
if not old then return {'0', 'retention', last, last, {}} end
local id, prev = old[1], old[2][2]
if above(prev, since) then
  return {'0', 'retention', prev, last, (page('XRANGE', KEYS[1], id, '+', count, bytes))}
end
local entries = page('XRANGE', KEYS[1], '(' .. since, '+', count, bytes)
if since == prev or (not above(id, since) and #redis.call('XRANGE', KEYS[1], since, since) == 1) then
  return {'1', '', since, last, entries}
end
return {'0', lost, entries[1] and entries[1][2] or last, last, entries}
