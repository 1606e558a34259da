-- A session is a member no more, if its node had entered it, in whichever life, by this entering
-- or an earlier one. One that came back since stays.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h 5 ...:n 6 ...:o, all of the presence topic
-- ARGV 1 session 2 name of the node 3 generation 4 head of the change 5 random32 6 max entries
--      7 max age ms 8 life of ...:l ms
-- Returns '1' when a member was removed
local owner, generation, _, member = entry(k.hash, ARGV[1])
if not owner or string.match(owner, '^(.*)~%d+$') ~= ARGV[2] then return '0' end
if tonumber(generation) > tonumber(ARGV[3]) then return '0' end
remove(k, ARGV[1], owner)
change(k, ARGV[4], member, ARGV[5], ARGV[6], ARGV[7], ARGV[8])
return '1'
