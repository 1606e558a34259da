-- What is said of all apps, without their settings, where anything has changed. Changes nothing.
-- KEYS as changes.lua has them   ARGV 1 the number that is known, '' to read in any case 2 how many apps are known 3 most apps
-- 4 most bytes of all
-- Returns {'same'}, {'many', apps}, {'large', bytes}, or {'all', number, changes by others, up to which removal all are forgotten,
-- removals, name, number, ..., name, bytes, life, number, ...}
local now, count = redis.call('GET', number_key) or '', redis.call('HLEN', apps)
if ARGV[1] ~= '' and ARGV[1] == now and ARGV[2] == text(count) then return {'same'} end
if count > tonumber(ARGV[3]) then return {'many', text(count)} end
local _, others = numbers()
local removed = redis.call('ZRANGE', removals, 0, -1, 'WITHSCORES')
local answer = {'all', now, text(others), text(number_of(redis.call('HGET', about, 'forgot'))), text(#removed / 2)}
for at = 1, #removed, 2 do
  answer[#answer + 1] = removed[at]
  answer[#answer + 1] = text(number_of(removed[at + 1]))
end
local bytes = 0
for _, name in ipairs(redis.call('HKEYS', apps)) do
  local length = redis.call('HSTRLEN', apps, name)
  local life, number = said_of(name)
  bytes = bytes + #name + length
  for _, part in ipairs({name, text(length), life, number}) do answer[#answer + 1] = part end
end
if bytes > tonumber(ARGV[4]) then return {'large', text(bytes)} end
return answer
