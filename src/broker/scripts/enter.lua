-- A session becomes a member. Where it is one already, the entry is written anew if this entering,
-- or this life of its node, is a later one; it neither leaves nor joins by that.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h 5 ...:n 6 ...:o, all of the presence topic
-- ARGV 1 session 2 owner 3 generation 4 member 5 head of the change 6 random32 7 max entries
--      8 max age ms 9 life of ...:l ms
-- Returns {the newest position, {owner, its members, …}}
local owner, generation, came = entry(k.hash, ARGV[1])
local by = tonumber(ARGV[3]) - tonumber(generation or 0)
if not owner or by > 0 or (by == 0 and incarnation(ARGV[2]) > incarnation(owner)) then
  came = came or string.format('%.0f', clock())
  redis.call('HSET', k.hash, ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. came .. ' ' .. ARGV[4])
  if owner ~= ARGV[2] then
    if owner then counted(k.owners, owner, -1) end
    counted(k.owners, ARGV[2], 1)
  end
end
local id
if owner then id = newest(k.stream, k.last) or '0-0'
else
  redis.call('ZADD', k.names, 0, ARGV[1])
  id = change(k, ARGV[5], ARGV[4], ARGV[6], ARGV[7], ARGV[8], ARGV[9])
end
return {id, redis.call('HGETALL', k.owners)}
