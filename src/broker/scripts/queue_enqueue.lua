-- Entries on their way into their queues, in order. Each stands for itself; but after one that failed,
-- those that name it or one behind it are not tried.
-- KEYS of each partition six: 1 bell 2 3 4 5 its streams, the most urgent first 6 ...:later; then
--      ...:k:DIGEST of each entry that has one, in their order
-- ARGV 1 how many partitions, then of each entry two: how it goes, and its blob. How it goes: the place
--      of its stream among KEYS, and where there is more to say behind a space each: whether it has
--      ...:k:DIGEST (1 or 0), life of that in ms, due ms (0: now), the entry that must have come before it
--      (0: none), eight random bytes
-- Returns for each its name, {'duplicate', name}, {'failed', why} or {'untried'}
local partitions = tonumber(ARGV[1])
local clock_ms, clock_us
local filled, rings, later, failed = {}, {}, {}, {}
local key_at = partitions * 6
-- Which partition's keys begin behind this place.
local function base_of(at) return at - 1 - (at - 1) % 6 end
local function wait(at, due, random, blob)
  local base = base_of(at)
  local zset = KEYS[base + 6]
  local member = clock_us .. random .. at - base - 2 .. blob
  redis.call('ZADD', zset, due, member)
  if redis.call('ZRANGE', zset, 0, 0)[1] == member then rings[base] = true end
  return name(clock_us, random)
end
local function append(at, blob)
  local stream = KEYS[at]
  if not filled[at] then
    if redis.call('XLEN', stream) == 0 then rings[base_of(at)] = true end
    filled[at] = true
  end
  return redis.call('XADD', stream, '*', 'e', blob)
end
local function enqueue(at, key, life, due, random, blob)
  local known = key and redis.call('GET', key)
  if known then
    -- Changes nothing, but is a write: a WAIT behind it then speaks of the first entry too.
    redis.call('PEXPIRE', key, redis.call('PTTL', key))
    return {'duplicate', known}
  end
  if due > 0 and not clock_ms then
    local t = redis.call('TIME')
    clock_ms = t[1] * 1000 + math.floor(t[2] / 1000)
    clock_us = string.format('%010d%06d', t[1], t[2])
  end
  local id
  -- One whose time has come goes behind those of its time that still wait.
  local waits = due > 0 and (due > clock_ms or redis.call('ZCOUNT', KEYS[base_of(at) + 6], '-inf', due) > 0)
  if waits then id = wait(at, due, random, blob) else id = append(at, blob) end
  if key then redis.call('SET', key, id, 'PX', life) end
  return id
end
local answer = {}
for i = 2, #ARGV, 2 do
  local n, how, blob = i / 2, ARGV[i], ARGV[i + 1]
  local at = tonumber(how)
  local done, said
  if at then done, said = pcall(append, at, blob)
  else
    local place, has_key, life, due, before, random = string.match(how, '^(%d+) (%d) (%d+) (%d+) (%d+) (.*)$')
    local key
    if has_key == '1' then key_at = key_at + 1; key = KEYS[key_at] end
    if failed[tonumber(before)] then done, said = true, {'untried'}
    else done, said = pcall(enqueue, tonumber(place), key, life, tonumber(due), random, blob) end
  end
  if not done then said = {'failed', type(said) == 'table' and said.err or tostring(said)} end
  failed[n] = type(said) == 'table' and said[1] ~= 'duplicate'
  answer[n] = said
end
-- Who does not hear it finds the entry by looking.
for base in pairs(rings) do redis.pcall(spread, KEYS[base + 1], '') end
return answer
