#!lua flags=allow-oom
-- Takes entries out of a partition's index.
-- KEYS 1 ff:part:{N} 2 ff:ti:{N}   ARGV 1 token 2... entries
local lease, topics = unpack(KEYS)
local token = ARGV[1]
if string.match(redis.call('GET', lease) or '', '^%S+ (%d+) ') ~= token then return {'refused'} end
redis.call('ZREM', topics, unpack(ARGV, 2))
return {'held'}
