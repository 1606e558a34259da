#!lua flags=allow-oom
-- Extends a node's lease, or takes the name anew, and answers who lives: all, or only what changed since the last answer.
-- KEYS 1 leases (sorted set: name by lease end, ms; negative: it was seen to end)
--      2 incarnations (name -> INCARNATION HOLDER BEAT TOLD, the last two: the number of its last heartbeat, and the time
--        that was told in answer)
--      3 details (name -> JSON)
--      4 the last heartbeat of all: MS TOLD LASTING SINCE: MS by this clock, TOLD the time in us that it was answered,
--        LASTING how many leases were not seen to end, SINCE see below
--      5 changes (sorted set: name by the TOLD at which its life, its end or its details changed last)
-- ARGV 1 name 2 holder: random per process 3 the incarnation that this process has, 0 before the first 4 lease ms
--      5 details: JSON with at least one member 6 ended leases are forgotten after ms 7 a random number below 2^20
--      8 the number of this heartbeat, counted by the process from 1
--      9 that of the last heartbeat whose answer it has taken in; 0: none, or it wants to be told all
-- Returns {'superseded', newest} or {'held', incarnation, time, 'all' or 'changed', then name, incarnation and details of each
-- node that lives, and in 'changed' the name of each that does not, an empty text, and 'left' or 'ended'}
--
-- The incarnation is the time when it was taken, raised above all that was told before. The holder tells two processes with
-- one name apart also when the answer that gave the incarnation was lost. What stands here may be older than what this
-- process has: after a failover that lost writes. Then the name is taken anew, whoever had it before.
--
-- Changes alone are told only to a process whose last heartbeat is known here as it knows it: its own number, which it uses
-- once. Where an answer was lost, or Redis has lost writes or everything, the numbers differ, and it is told all. Where they
-- are the same, Redis has lost nothing that came before that heartbeat, and all that came after it stands in the changes.
--
-- Nodes of the release before run their own script over the same keys. It records no changes, and it writes MS TOLD alone
-- (a heartbeat), or leaves LASTING too high (a leave). Either is noticed by the next heartbeat here, and so is what a human
-- adds or takes away. Then SINCE becomes its time, and who was told something before that is told all. What they read here,
-- they read as before: they skip BEAT, TOLD, LASTING and SINCE, and details still change with every heartbeat, by a number
-- that is no change: who looks at a name, of either release, sees by it that its holder lives.
local t = redis.call('TIME')
local leases, incarnations, details, last_beat, changes = unpack(KEYS)
local name, process, before, lease, says, forgotten_after, random, beat, taken_in = unpack(ARGV)
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
lease, before = tonumber(lease), tonumber(before)
local incarnation, holder, beat_before, told_before =
  string.match(redis.call('HGET', incarnations, name) or '', '^(%d+) (%x+) ?(%d*) ?(%d*)')
local mine = holder == process
local newest = tonumber(incarnation or '0')
if not mine and before > 0 and newest > before then return {'superseded', incarnation} end
-- While no heartbeat was answered, nobody was told of an end, and nobody could extend a lease. So where Redis was away, or
-- its clock stepped, leases move on with the clock; and last long enough for all to come back, not only for the first.
local last, told, lasting, since = string.match(redis.call('GET', last_beat) or '', '^(%d+) (%d+) ?(%d*) ?(%d*)')
local is_recorded = tonumber(lasting or '') == redis.call('ZCOUNT', leases, '(0', '+inf')
local gap = now - (last or now)
if gap < 0 or gap > lease / 2 then
  local least = math.abs(gap) > lease / 2 and now + lease or 0
  local ends = redis.call('ZRANGEBYSCORE', leases, '(0', '+inf', 'WITHSCORES')
  for i = 1, #ends, 2 do
    redis.call('ZADD', leases, string.format('%.0f', math.max(ends[i + 1] + gap, least)), ends[i])
  end
end
-- The time that is told only rises, so that whoever has no lease and was born before it is surely dead. Where the clock is
-- behind, a failover may have lost the last incarnation: the same is not given again.
local time = math.max(now_us, (told or 0) + 1)
local lease_end = tonumber(redis.call('ZSCORE', leases, name) or '0')
local is_new = not mine or lease_end <= now or newest < before
if is_new then
  local highest = math.max(told or 0, newest, before)
  time = now_us > highest and now_us or highest + 1 + random
  incarnation = string.format('%.0f', time)
end
local said = string.match(redis.call('HGET', details, name) or '', '^{"beats":%d+,(.*)$')
says = string.sub(says, 2)
since = is_recorded and tonumber(since) or time
-- Nobody is told anything that lies before SINCE.
if not is_recorded then redis.call('DEL', changes) end
time = string.format('%.0f', time)
redis.call('ZADD', leases, string.format('%.0f', now + lease), name)
redis.call('HSET', incarnations, name, incarnation .. ' ' .. process .. ' ' .. beat .. ' ' .. time)
redis.call('HSET', details, name, '{"beats":' .. beat .. ',' .. says)
if is_new or said ~= says then redis.call('ZADD', changes, time, name) end
-- A lease that somebody was told has ended is over, also when the clock steps back: its owner may have been cleaned up.
local ended = redis.call('ZRANGEBYSCORE', leases, '(0', string.format('%.0f', now), 'WITHSCORES')
for i = 1, #ended, 2 do
  redis.call('ZADD', leases, string.format('%.0f', -ended[i + 1]), ended[i])
  redis.call('ZADD', changes, time, ended[i])
end
-- Whose end is forgotten, of that no change can be told.
local gone = redis.call('ZRANGEBYSCORE', leases, string.format('%.0f', forgotten_after - now), '0', 'LIMIT', 0, 100)
if #gone > 0 then
  for _, node in ipairs(gone) do since = math.max(since, redis.call('ZSCORE', changes, node) or 0) end
  for _, key in ipairs({leases, changes}) do redis.call('ZREM', key, unpack(gone)) end
  for _, key in ipairs({incarnations, details}) do redis.call('HDEL', key, unpack(gone)) end
end
lasting = redis.call('ZCOUNT', leases, '(0', '+inf')
redis.call('SET', last_beat, string.format('%.0f %s %d %.0f', now, time, lasting, since))
-- No lease that is positive now has ended.
local knows = mine and beat_before == taken_in and tonumber(told_before or '') and tonumber(told_before) >= since
local names = knows and redis.call('ZRANGEBYSCORE', changes, '(' .. told_before, '+inf')
  or redis.call('ZRANGEBYSCORE', leases, '(0', '+inf')
local answer = {'held', incarnation, time, knows and 'changed' or 'all'}
for _, node in ipairs(names) do
  local lives = tonumber(redis.call('ZSCORE', leases, node) or '0') > 0
  answer[#answer + 1] = node
  local its_details = redis.call('HGET', details, node)
  answer[#answer + 1] = lives and string.match(redis.call('HGET', incarnations, node) or '', '^%d*') or ''
  -- Who gives its lease back and leaves nothing behind takes its details away.
  answer[#answer + 1] = lives and (its_details or '') or its_details and 'ended' or 'left'
end
return answer
