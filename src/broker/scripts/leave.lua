-- A session is a member no more, if its node had entered it, in whichever life.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h, all of the presence topic
-- ARGV 1 session 2 name of the node 3 head of the change 4 random32 5 max entries 6 max age ms
--      7 life of ...:l ms
-- Returns '1' when a member was removed
local held = redis.call('HGET', KEYS[4], ARGV[1])
if not held then return '0' end
local node, member = string.match(held, '^(%S+)~%d+ %d+ (.*)$')
if node ~= ARGV[2] then return '0' end
redis.call('HDEL', KEYS[4], ARGV[1])
local k = {channel = KEYS[1], stream = KEYS[2], last = KEYS[3]}
local body = ARGV[3] .. member .. cmsgpack.pack(redis.call('HLEN', KEYS[4]))
local id, last = append(k, body, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
tell(k, id, last, body)
return '1'
