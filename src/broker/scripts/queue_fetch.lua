-- Lets what is due stand in its stream, and reads the heads of the streams of some partitions.
-- KEYS of each partition eight
-- ARGV 1 where the turn of partitions begins 2 most entries 3 most of a stream 4 the share of each lower
--      priority 5 most bytes 6 most that become due, of each partition 7 life of a dead letter ms
--      8 most fields of an entry 9 most bytes of an entry 10 most entries of one step, then of each
--      partition two: its token, and 1 as long as its heads may be of homes before
-- Returns {now, {how each partition stands}, {{partition, rank, id, starts, fields}, …}, dead letters that
-- were too old}, partitions and ranks counted from 0: as above, or
-- {'refused'}, or {'failed', why}. Of an entry that is too large {…, how many fields, how many bytes}.
-- Where several priorities have entries, the first entry of each comes whatever its bytes.
local from, most, most_of_stream, share, bytes_max, due_max, dead_life, fields_max, entry_bytes_max, step_max =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]),
  tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local count = #KEYS / 8
local now = clock()
local entries, size, dropped = {}, 0, 0
local coming_left = 4 * bytes_max -- Bytes that become due in all partitions.
local function come(base, part)
  local _, _, came, stuck, bytes = let_come(base, now, due_max, coming_left)
  coming_left = coming_left - bytes
  for rank, n in pairs(came) do part[rank + 1], part.later = part[rank + 1] + n, part.later - n end
  for rank, said in pairs(stuck) do
    ill(part, KEYS[base + 2 + rank], said)
    part.is_stuck = true
  end
end
-- How many homes have had the entry in hand that is at the head of each stream. Each home writes down
-- once what it found there when it first read it, '-' for nothing: what stands there when the next reads
-- it came in its time, or was there before it.
local function count_start(base, part, rank, id)
  local known, token, before = string.match(part.heads[rank] or '', '^(%S+) (%d+) (%d+)$')
  local is = known and 2 or 1
  if known == id then is = before + 1 end
  if token == part.token then return known == id and tonumber(before) or 1 end
  if id == '-' then is = 0 end
  local said = id .. ' ' .. part.token .. ' ' .. string.format('%.0f', is)
  try(part, KEYS[base + 8], redis.call, 'HSET', KEYS[base + 8], rank - 1, said)
  return is
end
local function begin(base, part)
  if part.later > 0 and coming_left > 0 then try(part, KEYS[base + 6], come, base, part) end
  if part.dead > 0 then
    local oldest = string.format('%.0f-0', math.max(now - dead_life, 0))
    local trimmed = try(part, KEYS[base + 7], redis.call, 'XTRIM', KEYS[base + 7], 'MINID', oldest) or 0
    part.dead, dropped = part.dead - trimmed, dropped + trimmed
  end
  part.oldest = {}
  if not part.is_first then return end
  part.heads = try(part, KEYS[base + 8], redis.call, 'HMGET', KEYS[base + 8], '0', '1', '2', '3')
  for rank = 1, part.heads and 4 or 0 do
    if part[rank] == 0 then count_start(base, part, rank, '-') end
  end
end
-- In steps: the first entry alone, and then as many as the bytes that are left have room for, if they
-- are no longer than those before.
local function read(base, part, rank, quota)
  local stream, start, got, step, longest = KEYS[base + 1 + rank], '-', 0, 1, 1
  local length = math.min(part[rank], most_of_stream)
  while got < length and #entries < quota.entries do
    local at_most = math.min(step, length - got, quota.entries - #entries)
    local found = redis.call('XRANGE', stream, start, '+', 'COUNT', at_most)
    for _, e in ipairs(found) do
      local id, fields = e[1], e[2]
      local bytes, first = bytes_of(fields), got == 0
      if first then part.oldest[rank] = id end
      quota.is_full = not quota.is_new and size + bytes > quota.bytes
      if quota.is_full then return end
      local n = first and (part.heads and count_start(base, part, rank, id) or 1) or 0
      if #fields > 2 * fields_max or bytes > entry_bytes_max then
        quota.is_full, fields, e[3] = true, #fields / 2, bytes
      end
      entries[#entries + 1] = {part.at, rank - 1, id, n, fields, e[3]}
      size, longest, got = size + bytes, math.max(longest, bytes), got + 1
      quota.is_new = false
      if quota.is_full then return end
    end
    if #found < at_most then return end
    start = '(' .. found[#found][1]
    step = math.max(math.min(step_max, math.floor((quota.bytes - size) / longest)), 1)
  end
end
local parts, states, waiting = {}, {}, {0, 0, 0, 0}
local leases, others = {}, {}
for base = 0, 8 * (count - 1), 8 do
  leases[#leases + 1] = KEYS[base + 1]
  others[#others + 1] = KEYS[base + 6]
  others[#others + 1] = KEYS[base + 7]
end
leases = redis.call('MGET', unpack(leases)) -- Nothing where it is of another type: that is read alone.
local is_short = redis.call('EXISTS', unpack(others)) == 0
local function look(base) return lengths(base, is_short) end
for step = 0, count - 1 do
  local i = (from + step) % count + 1
  local base, token = 8 * (i - 1), ARGV[9 + 2 * i]
  local part, why = looked(base, token, look, leases[i])
  if part then
    part.at, part.token, part.is_first = i - 1, token, ARGV[10 + 2 * i] == '1'
    begin(base, part)
    for rank = 1, 4 do waiting[rank] = waiting[rank] + part[rank] end
  end
  parts[i] = part or false
  if not part then states[i] = why and {'failed', why} or {'refused'} end
end
for rank = 1, 4 do
  local room = most
  for lower = rank + 1, 4 do if waiting[lower] > 0 then room = room - share end end
  local quota = {entries = room, bytes = bytes_max * room / most, is_new = true}
  for step = 0, waiting[rank] > 0 and count - 1 or -1 do
    local i = (from + step) % count + 1
    local base, part = 8 * (i - 1), parts[i]
    if part and part[rank] > 0 and #entries < room and not quota.is_full then
      try(part, KEYS[base + 1 + rank], read, base, part, rank, quota)
    end
  end
end
for i = 1, count do
  local part = parts[i]
  if part then states[i] = told(8 * (i - 1), part, part.oldest, now) end
end
return {now, states, entries, dropped}
