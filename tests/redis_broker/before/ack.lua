-- Moves the cursor of an inbox forward, and tells the user's sessions when it moved.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:c
-- ARGV 1 position 2 session 3 life of ...:l and ...:c ms
-- Returns {'above'} or {'cursor', the cursor after it}
local position = ARGV[1]
if above(position, newest(KEYS[2], KEYS[3]) or '0-0') then return {'above', ''} end
local cur = redis.call('GET', KEYS[4]) or '0-0'
local moved = above(position, cur)
if moved then cur = position; redis.call('SET', KEYS[4], cur) end
redis.call('PEXPIRE', KEYS[4], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
if moved then redis.call(spread, KEYS[1], 'a ' .. cur .. ' ' .. ARGV[2]) end
return {'cursor', cur}
