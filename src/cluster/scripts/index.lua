#!lua flags=allow-oom
-- A part of a partition's index, without the entries of owners that live.
-- KEYS 1 ff:part:{N} 2 ff:ti:{N}
-- ARGV 1 token 2 cursor ('0': from the start) 3 about so many entries are looked at 4... owners that live
-- Returns {'held', the next cursor ('0': it was the last part), entries...} or {'refused'}
local lease, topics = unpack(KEYS)
local token, cursor, count = unpack(ARGV, 1, 3)
if string.match(redis.call('GET', lease) or '', '^%S+ (%d+) ') ~= token then return {'refused'} end
local live = {}
for i = 4, #ARGV do live[ARGV[i]] = true end
local part = redis.call('ZSCAN', topics, cursor, 'COUNT', count)
local answer = {'held', part[1]}
for i = 1, #part[2], 2 do
  local entry = part[2][i]
  if not live[string.match(entry, '%S*$')] then answer[#answer + 1] = entry end
end
return answer
