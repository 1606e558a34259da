#!lua flags=allow-oom
-- A part of a partition's index, without the entries of owners that live.
-- KEYS 1 ff:part:{N} 2 ff:ti:{N}
-- ARGV 1 token 2 cursor ('0': from the start) 3 about so many entries are looked at 4... owners that live
-- Returns {'held', the next cursor ('0': it was the last part), entries...} or {'refused'}
if string.match(redis.call('GET', KEYS[1]) or '', '^%S+ (%d+) ') ~= ARGV[1] then return {'refused'} end
local live = {}
for i = 4, #ARGV do live[ARGV[i]] = true end
local part = redis.call('ZSCAN', KEYS[2], ARGV[2], 'COUNT', ARGV[3])
local answer = {'held', part[1]}
for i = 1, #part[2], 2 do
  local entry = part[2][i]
  if not live[string.match(entry, '%S*$')] then answer[#answer + 1] = entry end
end
return answer
