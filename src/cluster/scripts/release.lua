#!lua flags=allow-oom
-- Gives the lease of a partition back, if it is still the one of this token. The token stays, so that the next is higher.
-- Who gives it back has not ended with an entry of the queue in hand: what is counted of that is forgotten.
-- KEYS 1 ff:part:{N} 2 ff:q:{N}:heads   ARGV 1 token
local lease, token = KEYS[1], ARGV[1]
if string.match(redis.call('GET', lease) or '', '^%S+ (%d+) ') ~= token then return {'refused'} end
redis.call('SET', lease, '- ' .. token .. ' 0')
redis.call('DEL', KEYS[2])
return {'held'}
