-- Tells a change of members, with how many there are after it. Returns its position. What it does
-- follows, as in a publication.
local function change(head, member, random, entries, age, life)
local cursor, key, context
local body = head .. member .. cmsgpack.pack(redis.call('HLEN', hash))
