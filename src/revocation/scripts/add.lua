#!lua flags=allow-oom
-- Adds entries, or makes them stronger, and forgets some that have ended. All of them or none, and also where memory is
-- full: they are few, and whoever fills it must not be the one who cannot be put out.
-- KEYS 1 entries (name -> ISSUED_BEFORE UNTIL_MS NUMBER) 2 names by the number of their last change 3 names by their end
-- 4 sum of prints, last number, up to which end all is forgotten, for how long entries are kept, when a node said so, and for
-- how long they were kept before that fell, with the last number then: LONGER_MS:NUMBER of each, the longest first
-- ARGV 1 most entries 2 how long one is kept, ms 3 a number below the new ones 4 0 to 1023, at random
-- 5 the caller's clock, s 6 how far it may be behind this one 7 how far ahead of it a token may have been issued, s
-- then for each: name, issued before or '' for all that may have been issued so far, end in ms or '' for the usual
-- Returns {'full', entries}, or {'stored', before which second all of them hold}
local entries, changes, ends, about = unpack(KEYS)
local PRINTS, ANY_TIME, HOUR_MS = 281474976710656, 253402300800, 3600000
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local clock = tonumber(ARGV[5])
local next_s = math.max(clock, math.min(math.floor(now / 1000), clock + tonumber(ARGV[6]))) + 1 + tonumber(ARGV[7])
local known = redis.call('HMGET', about, 'sum', 'last', 'forgot', 'kept', 'said', 'fell')
local function number_of(text)
  local n = tonumber(text or '0') or 0
  return n >= 0 and n < 9007199254740992 and n or 0
end
local sum, last, forgot = number_of(known[1]), number_of(known[2]), number_of(known[3])
local kept, said = number_of(known[4]), number_of(known[5])
local function text(n) return string.format('%.0f', n) end
local function print_of(name, mark) return tonumber(string.sub(redis.sha1hex(name .. ' ' .. mark), 1, 12), 16) end
local function marked(name) return string.match(redis.call('HGET', entries, name) or '', '^(%d+) (%d+) %d+$') end

local over = redis.call('ZRANGEBYSCORE', ends, '-inf', text(now), 'LIMIT', 0, 1000)
if #over > 0 then
  -- Up to one end all is forgotten, so that nodes know by one number what is.
  forgot = tonumber(redis.call('ZSCORE', ends, over[#over]))
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', text(forgot))) do
    local issued_before, until_ms = marked(name)
    if issued_before then sum = (sum - print_of(name, issued_before .. ' ' .. until_ms)) % PRINTS end
    redis.call('HDEL', entries, name)
    redis.call('ZREM', changes, name)
    redis.call('ZREM', ends, name)
  end
  redis.call('HSET', about, 'sum', text(sum), 'forgot', text(forgot))
end

-- The longest that any node keeps them holds for all, until none has said so for an hour. Where a node keeps them longer than
-- that, mend.lua has to lengthen first what is there.
local mine = tonumber(ARGV[2])
if kept == 0 or mine == kept or (mine < kept and now - said > HOUR_MS) then
  if mine < kept then
    -- What was made so far is kept for longer, and must not be lengthened again when a node keeps entries longer.
    local falls = {}
    for longer, number in string.gmatch(known[6] or '', '(%d+):(%d+)') do
      if tonumber(longer) > kept then falls[#falls + 1] = longer .. ':' .. number end
    end
    falls[#falls + 1] = text(kept) .. ':' .. text(last)
    redis.call('HSET', about, 'fell', table.concat(falls, ' ', math.max(1, #falls - 15)))
  end
  kept, said = mine, now
  redis.call('HSET', about, 'kept', text(kept), 'said', text(said))
end
kept = math.max(kept, mine)

local new = 0
for i = 8, #ARGV, 3 do new = new + 1 - redis.call('HEXISTS', entries, ARGV[i]) end
local count = redis.call('HLEN', entries)
if new > 0 and count + new > tonumber(ARGV[1]) then return {'full', text(count)} end

local number = math.max(now * 1024 + tonumber(ARGV[4]), last + 1, tonumber(ARGV[3]) + 1)
local least = nil
for i = 8, #ARGV, 3 do
  local name = ARGV[i]
  local issued_before = tonumber(ARGV[i + 1]) or next_s
  local from = issued_before < ANY_TIME and issued_before * 1000 or 0
  local until_ms = tonumber(ARGV[i + 2]) or math.max(now, from) + kept
  until_ms = math.max(until_ms, forgot + 1)
  local old_before, old_until = marked(name)
  if old_before then
    issued_before = math.max(issued_before, tonumber(old_before))
    until_ms = math.max(until_ms, tonumber(old_until))
  end
  least = math.min(least or issued_before, issued_before)
  local mark = text(issued_before) .. ' ' .. text(until_ms)
  local is_same = old_before and mark == old_before .. ' ' .. old_until
  if not is_same then
    if old_before then sum = sum - print_of(name, old_before .. ' ' .. old_until) end
    sum = (sum + print_of(name, mark)) % PRINTS
    redis.call('HSET', entries, name, mark .. ' ' .. text(number))
    redis.call('ZADD', changes, text(number), name)
    redis.call('ZADD', ends, text(until_ms), name)
    last, number = number, number + 1
  end
end
redis.call('HSET', about, 'sum', text(sum), 'last', text(last))
return {'stored', text(least or 0)}
