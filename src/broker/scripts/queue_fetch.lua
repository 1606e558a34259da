-- Lets what is due stand in its stream, and reads the heads of the streams of some partitions.
-- KEYS of each partition eight
-- ARGV 1 where the turn of partitions begins 2 most entries 3 most of a stream 4 the share of each lower
--      priority 5 most bytes 6 most that become due, of each partition 7 life of a dead letter ms
--      8 most fields of an entry 9 most bytes of an entry, then of each partition two: its token, and 1
--      as long as its heads may be of homes before
-- Returns {now, {how each partition stands}, {{partition, rank, id, starts, fields}, …}}, partitions and
-- ranks counted from 0: as above, or
-- {'refused'}, or {'failed', why}. Of an entry that is too large {…, how many fields, how many bytes}.
-- Where several priorities have entries, the first entry of each comes whatever its bytes.
local from, most, most_of_stream, share, bytes_max, due_max, dead_life, fields_max, entry_bytes_max =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]),
  tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local count = #KEYS / 8
local now = clock()
local entries, size = {}, 0
-- In the order of their due times, and of one time in the order of acceptance, which begins a member.
local function let_come(base, part)
  local later = KEYS[base + 6]
  for _, member in ipairs(redis.call('ZRANGE', later, '-inf', now, 'BYSCORE', 'LIMIT', 0, due_max)) do
    local us, rank = string.match(member, '^(%d+)'), tonumber(string.sub(member, 25, 25))
    if us and #us >= 16 and rank and rank < 4 then
      local accepted = name(string.sub(member, 1, 16), string.sub(member, 17, 24))
      redis.call('XADD', KEYS[base + 2 + rank], '*', 'e', string.sub(member, 26), 'a', accepted)
    else -- Of nobody who knows the form: it is told by whoever fails to read it.
      rank = 2
      redis.call('XADD', KEYS[base + 2 + rank], '*', 'e', member)
    end
    redis.call('ZREM', later, member)
    part[rank + 1] = part[rank + 1] + 1
    part.later = part.later - 1
  end
end
-- How many homes have had the entry in hand that is at the head of each stream. Each home writes down
-- once what it found there, '-' for nothing: what stands there when the next begins came in its time,
-- or was there before it.
local function count_starts(base, part)
  local heads, key = redis.call('HMGET', KEYS[base + 8], '0', '1', '2', '3'), KEYS[base + 8]
  for rank = 1, 4 do
    local head = part[rank] > 0 and redis.call('XRANGE', KEYS[base + 1 + rank], '-', '+', 'COUNT', 1)[1]
    local id = head and head[1] or '-'
    local known, token, before = string.match(heads[rank] or '', '^(%S+) (%d+) (%d+)$')
    local is = known and 2 or 1
    if known == id then is = before + 1 end
    if token == part.token then
      is = known == id and tonumber(before) or 1
    else
      if id == '-' then is = 0 end
      redis.call('HSET', key, rank - 1, id .. ' ' .. part.token .. ' ' .. string.format('%.0f', is))
    end
    part.starts[rank] = is
  end
end
local function begin(base, part)
  if part.later > 0 then let_come(base, part) end
  if part.dead > 0 then
    local oldest = string.format('%.0f-0', math.max(now - dead_life, 0))
    part.dead = part.dead - redis.call('XTRIM', KEYS[base + 7], 'MINID', oldest)
  end
  part.oldest, part.starts = {}, {}
  if part.is_first then count_starts(base, part) end
end
local function read(base, part, rank, quota)
  local stream, start, got = KEYS[base + 1 + rank], '-', 0
  while got < most_of_stream and #entries < quota.entries do
    local at_most = math.min(8, most_of_stream - got, quota.entries - #entries)
    local step = redis.call('XRANGE', stream, start, '+', 'COUNT', at_most)
    for _, e in ipairs(step) do
      local id, fields = e[1], e[2]
      local bytes = 0
      for i = 1, #fields do bytes = bytes + #fields[i] end
      local is_large = #fields > 2 * fields_max or bytes > entry_bytes_max
      local first = got == 0
      if first then part.oldest[rank] = id end
      if not quota.is_new and size + (is_large and 0 or bytes) > quota.bytes then return end
      quota.is_new = false
      local n = first and (part.starts[rank] or 1) or 0
      if is_large then entries[#entries + 1] = {part.at, rank - 1, id, n, #fields / 2, bytes}
      else
        entries[#entries + 1] = {part.at, rank - 1, id, n, fields}
        size = size + bytes
      end
      got = got + 1
    end
    if #step < at_most then return end
    start = '(' .. step[#step][1]
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
for i = 1, count do
  local base, token = 8 * (i - 1), ARGV[8 + 2 * i]
  local part, why = looked(base, token, look, leases[i])
  if part then
    part.at, part.token, part.is_first = i - 1, token, ARGV[9 + 2 * i] == '1'
    local done, said = pcall(begin, base, part)
    if done then
      for rank = 1, 4 do waiting[rank] = waiting[rank] + part[rank] end
    else
      part, why = nil, words(said)
    end
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
    local part = parts[i]
    if part and part[rank] > 0 and #entries < room then read(8 * (i - 1), part, rank, quota) end
  end
end
for i = 1, count do
  local base, part = 8 * (i - 1), parts[i]
  if part then
    states[i] = told(base, part, part.oldest)
  end
end
return {now, states, entries}
