-- All apps, where anything has changed. Changes nothing.
-- KEYS as put.lua has them   ARGV 1 the number that is known, '' to read in any case 2 most apps 3 most bytes of all
-- Returns {'same'}, {'many', apps}, {'large', bytes}, {'lost'} where there is neither an app nor a number, or {'all', number,
-- name, JSON, ...}
local apps, number = unpack(KEYS)
local now = redis.call('GET', number) or ''
if ARGV[1] ~= '' and ARGV[1] == now then return {'same'} end
local count = redis.call('HLEN', apps)
if count == 0 and now == '' then return {'lost'} end
if count > tonumber(ARGV[2]) then return {'many', string.format('%.0f', count)} end
local answer, bytes = {'all', now}, 0
local names = redis.call('HKEYS', apps)
for _, name in ipairs(names) do bytes = bytes + #name + redis.call('HSTRLEN', apps, name) end
if bytes > tonumber(ARGV[3]) then return {'large', string.format('%.0f', bytes)} end
for _, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('HGET', apps, name)
end
return answer
