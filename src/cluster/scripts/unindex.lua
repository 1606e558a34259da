#!lua flags=allow-oom
-- Takes entries out of a partition's index.
-- KEYS 1 ff:part:{N} 2 ff:ti:{N}   ARGV 1 token 2... entries
if string.match(redis.call('GET', KEYS[1]) or '', '^%S+ (%d+) ') ~= ARGV[1] then return {'refused'} end
redis.call('ZREM', KEYS[2], unpack(ARGV, 2))
return {'held'}
