#!lua
-- Stores the settings of an app.
-- KEYS 1 apps (name -> JSON) 2 number of the last change   ARGV 1 name 2 JSON 3 most apps 4 most bytes of all
-- Returns {'same' or 'stored', ''}, or {'many', apps}, or {'large', bytes}
local apps, number = unpack(KEYS)
local old = redis.call('HGET', apps, ARGV[1])
if old == ARGV[2] then return {'same', ''} end
local count = redis.call('HLEN', apps)
if count > tonumber(ARGV[3]) or (not old and count == tonumber(ARGV[3])) then
  return {'many', string.format('%.0f', count)}
end
local bytes = #ARGV[1] + #ARGV[2]
for _, name in ipairs(redis.call('HKEYS', apps)) do
  if name ~= ARGV[1] then bytes = bytes + #name + redis.call('HSTRLEN', apps, name) end
end
if bytes > tonumber(ARGV[4]) then return {'large', string.format('%.0f', bytes)} end
-- First, because it may be no number: nothing is stored then.
redis.call('INCR', number)
redis.call('HSET', apps, ARGV[1], ARGV[2])
return {'stored', ''}
