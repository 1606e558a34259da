-- A page of members in the order of their sessions, how many each owner has, and the position to
-- which both belong. What it costs grows with the page and the owners, not with the members. Where
-- the next entry would be over the bytes, the entries end before it and the sessions go on.
-- KEYS 1 ...:s 2 ...:l 3 ...:h 4 ...:n 5 ...:o, all of the presence topic
-- ARGV 1 after which session ('': from the first) 2 at most so many 3 most bytes of entries, the
--      first apart
-- Returns {the position, {owner, its members, …}, sessions, their entries of ...:h}
local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local sessions = redis.call('ZRANGEBYLEX', KEYS[4], from, '+', 'LIMIT', 0, ARGV[2])
local entries, size, most = {}, 0, tonumber(ARGV[3])
for i = 1, #sessions, 64 do -- what is read and not shown is bounded too
  local some = redis.call('HMGET', KEYS[3], unpack(sessions, i, math.min(i + 63, #sessions)))
  for _, e in ipairs(some) do
    size = size + (e and #e or 0)
    if #entries > 0 and size > most then break end
    entries[#entries + 1] = e
  end
  if size > most then break end
end
return {newest(KEYS[1], KEYS[2]) or '0-0', redis.call('HGETALL', KEYS[5]), sessions, entries}
