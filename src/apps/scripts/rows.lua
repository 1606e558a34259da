-- The settings of these apps. Changes nothing.
-- KEYS as changes.lua has them   ARGV names
-- Returns for each whether it is there, and its JSON
local answer = {}
for _, name in ipairs(ARGV) do
  local json = redis.call('HGET', apps, name)
  answer[#answer + 1] = json and '1' or '0'
  answer[#answer + 1] = json or ''
end
return answer
