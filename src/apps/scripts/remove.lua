#!lua flags=allow-oom
-- Removes an app. What makes room is done where memory is full as well.
-- KEYS as put.lua has them   ARGV 1 name
-- Returns 1 where it was there
local apps, number = unpack(KEYS)
if redis.call('HEXISTS', apps, ARGV[1]) == 0 then return 0 end
redis.call('INCR', number)
return redis.call('HDEL', apps, ARGV[1])
