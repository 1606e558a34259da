-- Moves the cursor of an inbox forward, and tells the user's sessions when it moved. It and the last id
-- are remembered on by the `renew` that stands above, from the id on where that is ahead of the clock.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:c
-- ARGV 1 position 2 session 3 life of ...:l and ...:c ms
-- Returns {'above'} or {'cursor', the cursor after it}
local channel, stream, last, cursor = unpack(KEYS)
local position, session, life = unpack(ARGV)
local id = newest(stream, last) or '0-0'
if above(position, id) then return {'above', ''} end
life = life + ahead(id)
local before = redis.call('GET', cursor)
local read_to = before or '0-0'
local moved = above(position, read_to)
if moved then
  read_to = position
  if before then redis.call('SET', cursor, read_to, 'KEEPTTL')
  else redis.call('SET', cursor, read_to, 'PX', life) end
end
renew(cursor, life)
renew(last, life)
if moved then redis.call(spread, channel, 'a ' .. read_to .. ' ' .. session) end
return {'cursor', read_to}
