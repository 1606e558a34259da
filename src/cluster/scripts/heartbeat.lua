#!lua flags=allow-oom
-- Extends a node's lease, or takes the name anew, and answers who lives.
-- KEYS 1 leases (sorted set: name by lease end, ms; negative: it was seen to end) 2 incarnations (name -> INCARNATION HOLDER) 3 details (name -> JSON)
-- ARGV 1 name 2 holder: random per process 3 the incarnation that this process has, 0 before the first 4 lease ms 5 details
--      6 ended leases are forgotten after ms
-- The incarnation is the time when it was taken, raised above the previous one. The holder tells two processes with one
-- name apart also when the answer that gave the incarnation was lost. What stands here may be older than what this process
-- has: after a failover that lost writes. Then the name is taken anew, whoever had it before.
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local incarnation, holder = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+) (%x+)')
local mine = holder == ARGV[2]
local newest, before = tonumber(incarnation or '0'), tonumber(ARGV[3])
if not mine and before > 0 and newest > before then return {'superseded', incarnation} end
local lease_end = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')
if not mine or lease_end <= now or newest < before then
  incarnation = string.format('%.0f', math.max(now_us, newest + 1, before + 1))
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[4]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], incarnation .. ' ' .. ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
-- A lease that somebody was told has ended is over, also when the clock steps back: its owner may have been cleaned up.
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '(0', string.format('%.0f', now), 'WITHSCORES')
for i = 1, #ended, 2 do
  redis.call('ZADD', KEYS[1], string.format('%.0f', -ended[i + 1]), ended[i])
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', ARGV[6] - now), '0', 'LIMIT', 0, 100)
if #gone > 0 then
  redis.call('ZREM', KEYS[1], unpack(gone))
  redis.call('HDEL', KEYS[2], unpack(gone))
  redis.call('HDEL', KEYS[3], unpack(gone))
end
local answer = {'held', incarnation, string.format('%.0f', now_us)}
local live = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
for i = 1, #live, 2 do
  answer[#answer + 1] = live[i]
  answer[#answer + 1] = string.match(redis.call('HGET', KEYS[2], live[i]) or '', '^%d*')
  answer[#answer + 1] = string.format('%.0f', live[i + 1] - now)
  answer[#answer + 1] = redis.call('HGET', KEYS[3], live[i]) or ''
end
return answer
