#!lua flags=allow-oom
-- Gives the lease of a partition back, if it is still the one of this token. The token stays, so that the next is higher.
-- KEYS 1 ff:part:{N}   ARGV 1 token
if string.match(redis.call('GET', KEYS[1]) or '', '^%S+ (%d+) ') ~= ARGV[1] then return {'refused'} end
redis.call('SET', KEYS[1], '- ' .. ARGV[1] .. ' 0')
return {'held'}
