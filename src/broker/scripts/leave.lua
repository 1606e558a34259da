-- A session is a member no more, if this owner had entered it.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h, all of the presence topic
-- ARGV 1 session 2 owner 3 '1': publish nothing 4 head of the change 5 random32 6 max entries
--      7 max age ms 8 life of ...:l ms
-- Returns '1' when a member was removed
local held = redis.call('HGET', KEYS[4], ARGV[1])
if not held then return '0' end
local owner, member = string.match(held, '^(%S+) %d+ (.*)$')
if owner ~= ARGV[2] then return '0' end
redis.call('HDEL', KEYS[4], ARGV[1])
if ARGV[3] == '0' then
  local k = {channel = KEYS[1], stream = KEYS[2], last = KEYS[3]}
  local body = ARGV[4] .. member .. cmsgpack.pack(redis.call('HLEN', KEYS[4]))
  local id, last = append(k, body, ARGV[5], ARGV[6], ARGV[7], ARGV[8])
  tell(k, id, last, body)
end
return '1'
