-- What came after a position.
-- KEYS 1 ...:s 2 ...:l
-- ARGV 1 since 2 max age ms 3 life of ...:l ms 4 most entries 5 most bytes of bodies
--      6 how long two masters may both have taken publications, in ms
-- Returns {recovered '1'|'0', reason, the position after which the page begins, the last id, the page}
-- Where since is not there, nobody knows how far back the two timelines part. So what follows begins
-- that much earlier, and no page comes with that: a client reads on from there, and a node looks for
-- what it has itself.
local stream, last_key = unpack(KEYS)
local since, age, life, count, bytes, overlap = unpack(ARGV)
local now = clock()
local function after(from) return (page('XRANGE', stream, from, '+', tonumber(count), tonumber(bytes))) end
local young = now - string.match(since, '^%d+') < tonumber(life)
local last = newest(stream, last_key)
if not last then
  if since == '0-0' then return {'1', '', '0-0', '0-0', {}} end
  return {'0', young and 'failover' or 'retention', '0-0', '0-0', {}}
end
if since == last then return {'1', '', last, last, {}} end
local ahead = above(since, last)
local oldest = redis.call('XRANGE', stream, within(age, now), '+', 'COUNT', 1)[1]
if not oldest then return {'0', ahead and 'failover' or 'retention', last, last, {}} end
local id, prev = oldest[1], field(oldest, 'p')
if since == prev or (not above(id, since) and #redis.call('XRANGE', stream, since, since) == 1) then
  return {'1', '', since, last, after('(' .. since)}
end
if above(prev, since) or not (young or ahead) then
  return {'0', 'retention', prev, last, after(id)}
end
local from = within(overlap, string.match(ahead and last or since, '^%d+'))
if above(id, from) then from = id end
local first = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
return {'0', 'failover', first and field(first, 'p') or last, last, {}}
