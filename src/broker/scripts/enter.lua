-- A session becomes a member. Where it is one already, the entry is written anew if this entering,
-- or this life of its node, is a later one; it neither leaves nor joins by that.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h 5 ...:n 6 ...:o, all of the presence topic
-- ARGV 1 session 2 owner 3 generation 4 member 5 head of the change 6 random32 7 max entries
--      8 max age ms 9 life of ...:l ms
-- Returns {the newest position, {owner, its members, …}}
local session, owner, generation, member, head, random, entries, age, life = unpack(ARGV)
local function incarnation(of) return tonumber(string.match(of, '~(%d+)$')) end
local before, its_generation, came = entry(session)
local by = generation - (its_generation or 0)
if not before or by > 0 or (by == 0 and incarnation(owner) > incarnation(before)) then
  came = came or string.format('%.0f', clock())
  redis.call('HSET', hash, session, owner .. ' ' .. generation .. ' ' .. came .. ' ' .. member)
  if before ~= owner then
    if before then counted(before, -1) end
    counted(owner, 1)
  end
end
local id
if before then id = newest(stream, last) or '0-0'
else
  redis.call('ZADD', names, 0, session)
  id = change(head, member, random, entries, age, life)
end
return {id, redis.call('HGETALL', owners)}
