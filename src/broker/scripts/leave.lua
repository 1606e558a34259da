-- A session is a member no more, if its node had entered it, in whichever life, by this entering
-- or an earlier one. One that came back since stays.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h 5 ...:n 6 ...:o, all of the presence topic
-- ARGV 1 session 2 name of the node 3 generation 4 head of the change 5 random32 6 max entries
--      7 max age ms 8 life of ...:l ms
-- Returns '1' when a member was removed
local session, node, generation, head, random, entries, age, life = unpack(ARGV)
local owner, its_generation, _, member = entry(session)
if not owner or string.match(owner, '^(.*)~%d+$') ~= node then return '0' end
if tonumber(its_generation) > tonumber(generation) then return '0' end
remove(session, owner)
change(head, member, random, entries, age, life)
return '1'
