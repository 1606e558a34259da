-- What changed after a number. Changes nothing.
-- KEYS as add.lua has them   ARGV 1 the number 2 most rows
-- Returns now in ms, entries, sum of prints, up to which end all is forgotten, for how long entries are kept, then name,
-- number and value of each in the order of their changes. What is no such number any more is 0: mend.lua puts it right.
local entries, changes, _, about = unpack(KEYS)
local t = redis.call('TIME')
local function number(text)
  local n = tonumber(text or '0') or 0
  if not (n >= 0 and n < 9007199254740992) then n = 0 end
  return string.format('%.0f', n)
end
local known = redis.call('HMGET', about, 'sum', 'forgot', 'kept')
local answer = {
  string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)),
  string.format('%.0f', redis.call('HLEN', entries)),
  number(known[1]), number(known[2]), number(known[3])
}
local found = redis.call('ZRANGEBYSCORE', changes, '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))
if #found == 0 then return answer end
local names = {}
for i = 1, #found, 2 do names[#names + 1] = found[i] end
local values = redis.call('HMGET', entries, unpack(names))
for i, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = number(found[2 * i])
  answer[#answer + 1] = values[i] or ''
end
return answer
