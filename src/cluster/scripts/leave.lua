#!lua flags=allow-oom
-- Ends a node's lease now, if this process holds the name. The incarnation stays until it is forgotten, so that the
-- next one is higher also when the clock stepped back.
-- KEYS 1 leases (as heartbeat.lua has them) 2 incarnations 3 details 4 the last heartbeat of all 5 changes
-- ARGV 1 name 2 holder 3 '1': the node leaves nothing behind; otherwise it counts as one whose lease has ended
local leases, incarnations, details, last_beat, changes = unpack(KEYS)
local name, process, is_bare = unpack(ARGV)
local holder = string.match(redis.call('HGET', incarnations, name) or '', '^%d+ (%x+)')
if holder ~= process then return 0 end
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local lease_end = tonumber(redis.call('ZSCORE', leases, name) or '0')
redis.call('ZADD', leases, 'XX', string.format('%.0f', -math.floor(now_us / 1000)), name)
if is_bare == '1' then redis.call('HDEL', details, name) end
-- A change as heartbeat.lua records it, at a time that was told to nobody before. Where the last heartbeat recorded none,
-- the next one tells all anyway.
local last, told, lasting, since = string.match(redis.call('GET', last_beat) or '', '^(%d+) (%d+) (%d+) (%d+)')
if since and lease_end > 0 then
  local time = string.format('%.0f', math.max(now_us, told + 1))
  redis.call('ZADD', changes, time, name)
  redis.call('SET', last_beat, string.format('%s %s %d %s', last, time, lasting - 1, since))
end
return 1
