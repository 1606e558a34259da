-- Removes an app, and leaves a mark that says so. What makes room is done where memory is full as well.
-- KEYS as changes.lua has them   ARGV 1 name 2 0 to 1023, at random 3 '1': the caller knows the app, so that one that was lost is
-- removed too 4 most marks 5 how long they are kept, ms
-- Returns 1 where it was there, or known
local name = ARGV[1]
if redis.call('HEXISTS', apps, name) == 0 and ARGV[3] ~= '1' then return 0 end
local number = change(ARGV[2])
redis.call('HDEL', apps, name)
redis.call('HDEL', lives, name)
redis.call('ZADD', removals, text(number), name)
local over = redis.call('ZCARD', removals) - tonumber(ARGV[4])
local surplus = over > 0 and redis.call('ZRANGE', removals, over - 1, over - 1, 'WITHSCORES') or {}
local old = redis.call('ZREVRANGEBYSCORE', removals, text(number - tonumber(ARGV[5]) * 1024), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
local forgot = math.max(number_of(surplus[2]), number_of(old[2]))
if forgot > 0 then
  redis.call('ZREMRANGEBYSCORE', removals, '-inf', text(forgot))
  redis.call('HSET', about, 'forgot', text(forgot))
end
return 1
