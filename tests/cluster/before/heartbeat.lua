#!lua flags=allow-oom
-- Extends a node's lease, or takes the name anew, and answers who lives.
-- KEYS 1 leases (sorted set: name by lease end, ms; negative: it was seen to end) 2 incarnations (name -> INCARNATION HOLDER)
--      3 details (name -> JSON) 4 the last heartbeat of all: MS TOLD, by this clock, and the time in us that it was answered
-- ARGV 1 name 2 holder: random per process 3 the incarnation that this process has, 0 before the first 4 lease ms 5 details
--      6 ended leases are forgotten after ms 7 a random number below 2^20
-- The incarnation is the time when it was taken, raised above all that was told before. The holder tells two processes with
-- one name apart also when the answer that gave the incarnation was lost. What stands here may be older than what this
-- process has: after a failover that lost writes. Then the name is taken anew, whoever had it before.
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now, lease = math.floor(now_us / 1000), tonumber(ARGV[4])
local incarnation, holder = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+) (%x+)')
local mine = holder == ARGV[2]
local newest, before = tonumber(incarnation or '0'), tonumber(ARGV[3])
if not mine and before > 0 and newest > before then return {'superseded', incarnation} end
-- While no heartbeat was answered, nobody was told of an end, and nobody could extend a lease. So where Redis was away, or
-- its clock stepped, leases move on with the clock; and last long enough for all to come back, not only for the first.
local last, told = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+) (%d+)')
local gap = now - (last or now)
if gap < 0 or gap > lease / 2 then
  local least = math.abs(gap) > lease / 2 and now + lease or 0
  local lasting = redis.call('ZRANGEBYSCORE', KEYS[1], '(0', '+inf', 'WITHSCORES')
  for i = 1, #lasting, 2 do
    redis.call('ZADD', KEYS[1], string.format('%.0f', math.max(lasting[i + 1] + gap, least)), lasting[i])
  end
end
-- The time that is told only rises, so that whoever has no lease and was born before it is surely dead. Where the clock is
-- behind, a failover may have lost the last incarnation: the same is not given again.
local time = math.max(now_us, (told or 0) + 1)
local lease_end = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')
if not mine or lease_end <= now or newest < before then
  local highest = math.max(told or 0, newest, before)
  time = now_us > highest and now_us or highest + 1 + ARGV[7]
  incarnation = string.format('%.0f', time)
end
time = string.format('%.0f', time)
redis.call('SET', KEYS[4], string.format('%.0f ', now) .. time)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + lease), ARGV[1])
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
local answer = {'held', incarnation, time}
local live = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
for i = 1, #live, 2 do
  answer[#answer + 1] = live[i]
  answer[#answer + 1] = string.match(redis.call('HGET', KEYS[2], live[i]) or '', '^%d*')
  answer[#answer + 1] = string.format('%.0f', live[i + 1] - now)
  answer[#answer + 1] = redis.call('HGET', KEYS[3], live[i]) or ''
end
return answer
