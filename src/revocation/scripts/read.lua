-- What changed after a number. Changes nothing.
-- KEYS as add.lua has them   ARGV 1 the number 2 most rows
-- Returns now in ms, entries, sum of prints, up to which end all is forgotten, then name and value of each in the order of
-- their changes
local entries, changes, _, about = unpack(KEYS)
local t = redis.call('TIME')
local known = redis.call('HMGET', about, 'sum', 'forgot')
local answer = {
  string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)),
  string.format('%.0f', redis.call('HLEN', entries)),
  known[1] or '0', known[2] or '0'
}
local names = redis.call('ZRANGEBYSCORE', changes, '(' .. ARGV[1], '+inf', 'LIMIT', 0, tonumber(ARGV[2]))
if #names == 0 then return answer end
local values = redis.call('HMGET', entries, unpack(names))
for i, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = values[i] or ''
end
return answer
