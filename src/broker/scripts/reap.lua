-- Members of an owner that is dead are members no more. One step of a scan, and each that it finds
-- is removed and told as a leave in one go, so that both come once, whoever else is at it; a member
-- of another owner, such as the next life of the same node, stays as it is.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h 5 ...:n 6 ...:o, all of the presence topic
-- ARGV 1 owner 2 cursor ('0': from the start) 3 about so many members are looked at 4 head of the
--      changes 5 random32 6 max entries 7 max age ms 8 life of ...:l ms
-- Returns {the next cursor ('0': it was the last step), members removed}
local dead, cursor, count, head, random, entries, age, life = unpack(ARGV)
if redis.call('HEXISTS', owners, dead) == 0 then return {'0', 0} end
local step = redis.call('HSCAN', hash, cursor, 'COUNT', count)
local removed = 0
for i = 1, #step[2], 2 do
  local session = step[2][i]
  local owner, _, _, member = entry(session)
  if owner == dead then
    remove(session, owner)
    change(head, member, random, entries, age, life)
    removed = removed + 1
  end
end
if redis.call('HEXISTS', owners, dead) == 0 then return {'0', removed} end
return {step[1], removed}
