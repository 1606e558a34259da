-- Stores the settings of an app, or puts back what was lost.
-- KEYS as changes.lua has them   ARGV 1 name 2 JSON 3 most apps 4 most bytes of all 5 0 to 1023, at random 6 the life in which
-- the caller knows the app, '' where it does not 7 up to which number the caller has read 8 '1': only where it was lost
-- Returns {'same' or 'stored', life, number}, {'removed'}, {'many', apps}, or {'large', bytes}
local name, json, life = ARGV[1], ARGV[2], ARGV[6]
local old = redis.call('HGET', apps, name)
if old then
  local number
  life, number = said_of(name)
  if old == json or ARGV[8] == '1' then return {'same', life, number} end
else
  local read_to = tonumber(ARGV[7])
  local removed = number_of(redis.call('ZSCORE', removals, name))
  local forgot = number_of(redis.call('HGET', about, 'forgot'))
  -- Somebody has removed it since the caller has read: this one is another.
  if removed > read_to or forgot > read_to then life = '' end
  if life == '' and ARGV[8] == '1' then return {'removed'} end
end
local count = redis.call('HLEN', apps)
if count > tonumber(ARGV[3]) or (not old and count == tonumber(ARGV[3])) then return {'many', text(count)} end
local bytes = #name + #json
for _, other in ipairs(redis.call('HKEYS', apps)) do
  if other ~= name then bytes = bytes + #other + redis.call('HSTRLEN', apps, other) end
end
if bytes > tonumber(ARGV[4]) then return {'large', text(bytes)} end
local number = text(change(ARGV[5]))
if life == '' then life = number end
redis.call('HSET', apps, name, json)
redis.call('HSET', lives, name, life .. ' ' .. number)
redis.call('ZREM', removals, name)
return {'stored', life, number}
