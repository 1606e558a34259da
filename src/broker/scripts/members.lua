-- A page of members in the order of their sessions, how many each owner has, and the position to
-- which both belong. What it costs grows with the page and the owners, not with the members. Where
-- the next entry would be over the bytes, the entries end before it and the sessions go on.
-- KEYS 1 ...:s 2 ...:l 3 ...:h 4 ...:n 5 ...:o, all of the presence topic
-- ARGV 1 after which session ('': from the first) 2 at most so many 3 most bytes of entries, the
--      first apart
-- Returns {the position, {owner, its members, …}, sessions, their entries of ...:h}
local stream, last, hash, names, owners = unpack(KEYS)
local after, count, bytes = unpack(ARGV)
local from = after == '' and '-' or '(' .. after
local sessions = redis.call('ZRANGEBYLEX', names, from, '+', 'LIMIT', 0, count)
local entries, size, most = {}, 0, tonumber(bytes)
for i = 1, #sessions, 64 do -- what is read and not shown is bounded too
  local some = redis.call('HMGET', hash, unpack(sessions, i, math.min(i + 63, #sessions)))
  for _, e in ipairs(some) do
    size = size + (e and #e or 0)
    if #entries > 0 and size > most then break end
    entries[#entries + 1] = e
  end
  if size > most then break end
end
return {newest(stream, last) or '0-0', redis.call('HGETALL', owners), sessions, entries}
