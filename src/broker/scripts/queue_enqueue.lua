-- Entries on their way into their queues, in order. Each stands for itself; but after one that failed,
-- those that name it or one behind it are not tried.
-- KEYS of each partition six: 1 bell 2 3 4 5 its streams, the most urgent first 6 ...:later; then
--      ...:k:DIGEST of each entry that has one, in their order
-- ARGV 1 how many partitions 2 seven random bytes, then of each entry two: how it goes, and its blob. How
--      it goes: the place of its stream among KEYS, and where there is more to say behind a space each:
--      whether it has ...:k:DIGEST (1 or 0), life of that in ms, due ms (0: now), the entry that must
--      have come before it (0: none)
-- Returns for each its name, {'duplicate', name}, {'failed', why} or {'untried'}
local partitions, random = tonumber(ARGV[1]), ARGV[2]
local clock_ms, clock_us
local filled, rings, failed = {}, {}, {}
local priorities = {[0] = 'critical', 'high', 'normal', 'low'}
local behind, stuck = {}, {}
local doing -- The key that is at work.
local key_at = partitions * 6
local laters = {}
for base = 0, 6 * (partitions - 1), 6 do laters[#laters + 1] = KEYS[base + 6] end
local is_waited = redis.call('EXISTS', unpack(laters)) > 0
-- Which partition's keys begin behind this place.
local function base_of(at) return at - 1 - (at - 1) % 6 end
local function ring(base, rank) rings[base] = math.min(rank, rings[base] or rank) end
local function look_at_clock()
  if clock_ms then return end
  local t = redis.call('TIME')
  clock_ms = t[1] * 1000 + math.floor(t[2] / 1000)
  clock_us = string.format('%010d%06d', t[1], t[2])
end
-- By the number of the entry in its call those keep their order that are of one time.
local function wait(at, due, n, blob)
  local base, tail = base_of(at), string.char(n) .. random
  local zset = KEYS[base + 6]
  local member = clock_us .. tail .. at - base - 2 .. blob
  doing = zset
  redis.call('ZADD', zset, due, member)
  if redis.call('ZRANK', zset, member) == 0 then ring(base, at - base - 2) end
  return name(clock_us, tail)
end
-- Whether entries of the partition are due that have not come, so that one of now goes behind them: first
-- they may come.
local function is_behind(at)
  if not is_waited then return false end
  local base = base_of(at)
  if behind[base] == nil then
    look_at_clock()
    behind[base] = false
    local done, _, is_more, came, no = pcall(let_come, base, clock_ms, 100, 1048576)
    if done then behind[base], stuck[base] = is_more, no end
    for rank in pairs(done and came or {}) do ring(base, rank) end
  end
  doing = KEYS[at]
  local why = not behind[base] and stuck[base] and stuck[base][at - base - 2]
  if why then error(why, 0) end
  return behind[base]
end
local function append(at, blob)
  local stream = KEYS[at]
  doing = stream
  if not filled[at] then
    if redis.call('XLEN', stream) == 0 then ring(base_of(at), at - base_of(at) - 2) end
    filled[at] = true
  end
  return redis.call('XADD', stream, '*', 'e', blob)
end
local function put(at, n, blob)
  if is_behind(at) then return wait(at, clock_ms, n, blob) end
  return append(at, blob)
end
local function enqueue(at, n, blob, key, life, due)
  doing = key or KEYS[at]
  local known = key and redis.call('GET', key)
  if known then
    -- Changes nothing, but is a write: a WAIT behind it then speaks of the first entry too.
    redis.call('PEXPIRE', key, redis.call('PTTL', key))
    return {'duplicate', known}
  end
  if due > 0 then look_at_clock() end
  local id
  if due > 0 and due > clock_ms then id = wait(at, due, n, blob) else id = put(at, n, blob) end
  if key then
    -- It lives from the time of its entry on, or a repeat would come beside it.
    local waits = due > 0 and math.max(due - clock_ms, 0) or 0
    redis.call('SET', key, id, 'PX', string.format('%.0f', life + waits))
  end
  return id
end
-- Once more where it failed for its stream's last id alone, of which nothing else was changed.
local function done_or_mended(at, f, ...)
  local done, said = pcall(f, ...)
  if done then return true, said end
  look_at_clock()
  local _, is_mended = pcall(mended, said, KEYS[at], clock_ms, 0)
  if is_mended == true then return pcall(f, ...) end
  return false, words(said) .. ' (' .. doing .. ')'
end
local answer = {}
for i = 3, #ARGV, 2 do
  local n, how, blob = (i - 1) / 2, ARGV[i], ARGV[i + 1]
  local at = tonumber(how)
  local done, said
  if at then done, said = done_or_mended(at, put, at, n, blob)
  else
    local place, has_key, life, due, before = string.match(how, '^(%d+) (%d) (%d+) (%d+) (%d+)$')
    local key
    at = tonumber(place)
    if has_key == '1' then key_at = key_at + 1; key = KEYS[key_at] end
    if failed[tonumber(before)] then done, said = true, {'untried'}
    else done, said = done_or_mended(at, enqueue, at, n, blob, key, life, tonumber(due)) end
  end
  if not done then said = {'failed', words(said)} end
  failed[n] = type(said) == 'table' and said[1] ~= 'duplicate'
  answer[n] = said
end
-- Who does not hear it finds the entry by looking.
for base, rank in pairs(rings) do redis.pcall(spread, KEYS[base + 1], priorities[rank]) end
return answer
