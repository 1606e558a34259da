#!lua flags=allow-oom
-- Gives the lease of a partition back, if it is still the one of this token. The token stays, so that the next is higher.
-- KEYS 1 ff:part:{N}   ARGV 1 token
local lease, token = KEYS[1], ARGV[1]
if string.match(redis.call('GET', lease) or '', '^%S+ (%d+) ') ~= token then return {'refused'} end
redis.call('SET', lease, '- ' .. token .. ' 0')
return {'held'}
