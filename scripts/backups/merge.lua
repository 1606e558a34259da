-- Merges revocations into those that are there, each by maximum: nothing is made weaker, and the order does not matter.
-- KEYS 1 entries (name -> ISSUED_BEFORE UNTIL_MS NUMBER) 2 names by the number of their last change 3 names by their end
-- 4 sum of prints, last number, what is forgotten, for how long entries are kept (src/revocation/scripts/add.lua)
-- ARGV 1 for how long entries are kept where these come from, ms, 0 where that is not known 2 most entries
-- then for each: name, issued before, end in ms
-- Returns {how many were added or made stronger, how many had ended}
local entries, changes, ends, about = unpack(KEYS)
local PRINTS = 281474976710656
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function number_of(text)
  local n = tonumber(text or '0') or 0
  return n >= 0 and n < 9007199254740992 and n or 0
end
local function text(n) return string.format('%.0f', n) end
local function print_of(name, mark) return tonumber(string.sub(redis.sha1hex(name .. ' ' .. mark), 1, 12), 16) end
local known = redis.call('HMGET', about, 'sum', 'last', 'forgot', 'kept')
local sum, last = number_of(known[1]), number_of(known[2])
local forgot, kept, kept_there = number_of(known[3]), number_of(known[4]), number_of(ARGV[1])

local new = 0
for i = 3, #ARGV, 3 do new = new + 1 - redis.call('HEXISTS', entries, ARGV[i]) end
if redis.call('HLEN', entries) + new > tonumber(ARGV[2]) then return redis.error_reply('FULL of revocations') end
-- Tokens may live longer here than there: as much longer what names them is kept.
local longer = (kept_there > 0 and kept > kept_there) and kept - kept_there or 0
if kept == 0 and kept_there > 0 then redis.call('HSET', about, 'kept', text(kept_there), 'said', text(now)) end

local number, changed, ended = math.max(now * 1024, last + 1), 0, 0
for i = 3, #ARGV, 3 do
  local name, issued_before = ARGV[i], tonumber(ARGV[i + 1])
  local until_ms = tonumber(ARGV[i + 2]) + longer
  local old_before, old_until = string.match(redis.call('HGET', entries, name) or '', '^(%d+) (%d+) %d+$')
  if until_ms <= now then
    ended = ended + 1
  else
    until_ms = math.max(until_ms, forgot + 1)
    if old_before then
      issued_before = math.max(issued_before, tonumber(old_before))
      until_ms = math.max(until_ms, tonumber(old_until))
    end
    local mark = text(issued_before) .. ' ' .. text(until_ms)
    if not old_before or mark ~= old_before .. ' ' .. old_until then
      if old_before then sum = sum - print_of(name, old_before .. ' ' .. old_until) end
      sum = (sum + print_of(name, mark)) % PRINTS
      redis.call('HSET', entries, name, mark .. ' ' .. text(number))
      redis.call('ZADD', changes, text(number), name)
      redis.call('ZADD', ends, text(until_ms), name)
      last, number, changed = number, number + 1, changed + 1
    end
  end
end
redis.call('HSET', about, 'sum', text(sum), 'last', text(last))
return {changed, ended}
