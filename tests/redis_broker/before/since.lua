-- What came after a position.
-- KEYS 1 ...:s 2 ...:l
-- ARGV 1 since 2 max age ms 3 life of ...:l ms 4 most entries 5 most bytes of bodies
--      6 how long two masters may both have taken publications, in ms
-- Returns {recovered '1'|'0', reason, the position after which the page begins, the last id, the page}
-- Where since is not there, nobody knows how far back the two timelines part. So what follows begins
-- that much earlier, and no page comes with that: a client reads on from there, and a node looks for
-- what it has itself.
local since, now = ARGV[1], clock()
local count, bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local young = now - tonumber(string.match(since, '^%d+')) < tonumber(ARGV[3])
local last = newest(KEYS[1], KEYS[2])
if not last then
  if since == '0-0' then return {'1', '', '0-0', '0-0', {}} end
  return {'0', young and 'failover' or 'retention', '0-0', '0-0', {}}
end
if since == last then return {'1', '', last, last, {}} end
local ahead = above(since, last)
local old = redis.call('XRANGE', KEYS[1], floor(now, ARGV[2]), '+', 'COUNT', 1)[1]
if not old then return {'0', ahead and 'failover' or 'retention', last, last, {}} end
local id, prev = old[1], old[2][2]
if since == prev or (not above(id, since) and #redis.call('XRANGE', KEYS[1], since, since) == 1) then
  return {'1', '', since, last, (page('XRANGE', KEYS[1], '(' .. since, '+', count, bytes))}
end
if above(prev, since) or not (young or ahead) then
  return {'0', 'retention', prev, last, (page('XRANGE', KEYS[1], id, '+', count, bytes))}
end
local from = floor(tonumber(string.match(ahead and last or since, '^%d+')), ARGV[6])
if above(id, from) then from = id end
local first = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
return {'0', 'failover', first and first[2][2] or last, last, {}}
