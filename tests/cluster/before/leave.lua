#!lua flags=allow-oom
-- Ends a node's lease now, if this process holds the name. The incarnation stays until it is forgotten, so that the
-- next one is higher also when the clock stepped back.
-- KEYS 1 leases (as heartbeat.lua has them) 2 incarnations 3 details   ARGV 1 name 2 holder
local holder = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^%d+ (%x+)')
if holder ~= ARGV[2] then return 0 end
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', -(t[1] * 1000 + math.floor(t[2] / 1000))), ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
