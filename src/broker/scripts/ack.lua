-- Moves the cursor of an inbox forward, and tells the user's sessions when it moved.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:c
-- ARGV 1 position 2 session 3 life of ...:l and ...:c ms
-- Returns {'above'} or {'cursor', the cursor after it}
local channel, stream, last, cursor = unpack(KEYS)
local position, session, life = unpack(ARGV)
if above(position, newest(stream, last) or '0-0') then return {'above', ''} end
local read_to = redis.call('GET', cursor) or '0-0'
local moved = above(position, read_to)
if moved then read_to = position; redis.call('SET', cursor, read_to) end
redis.call('PEXPIRE', cursor, life)
redis.call('PEXPIRE', last, life)
if moved then redis.call(spread, channel, 'a ' .. read_to .. ' ' .. session) end
return {'cursor', read_to}
