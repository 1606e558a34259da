#!lua flags=allow-oom
-- Puts right what other hands or a loss of single keys made of the entries, and lengthens them: goes through all of them.
-- KEYS as add.lua has them   ARGV 1 entries 2 sum of prints, as whoever asks has read them, or '' and '' 3 least ms since this
-- was done last 4 how long the caller keeps entries, ms, then names that it cannot read
-- What was made to last shorter than the caller wants is lengthened by as much, once. A name without an entry that can be
-- read is dropped: who knows it writes it back.
-- Returns {'changed'}: others than those that were read are there; {'soon'}; {'mended', dropped, the first names of these}
local entries, changes, ends, about = unpack(KEYS)
local PRINTS = 281474976710656
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
local function number_of(digits)
  local n = tonumber(digits or '0') or 0
  return n >= 0 and n < 9007199254740992 and n or 0
end
local function is_number(digits) return digits and text(number_of(digits)) == digits end

local was_other = false
for i, kind in ipairs({'hash', 'zset', 'zset', 'hash'}) do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= kind then
    redis.call('DEL', KEYS[i])
    was_other = true
  end
end
local known = redis.call('HMGET', about, 'sum', 'last', 'kept', 'mended', 'fell')
local is_same = text(redis.call('HLEN', entries)) == ARGV[1] and text(number_of(known[1])) == ARGV[2]
if ARGV[1] ~= '' and not is_same and not was_other then return {'changed'} end
local kept, mine = number_of(known[3]), tonumber(ARGV[4])
local longer = (kept > 0 and mine > kept) and mine - kept or 0
-- For how long an entry is kept whose last change has this number.
local falls = {}
for long, number in string.gmatch(known[5] or '', '(%d+):(%d+)') do falls[#falls + 1] = {tonumber(long), tonumber(number)} end
local function kept_of(number)
  local long = kept
  for _, fall in ipairs(falls) do
    if number <= fall[2] then long = math.max(long, fall[1]) end
  end
  return long
end
local function longer_end(until_ms, issued_before, number)
  if longer == 0 then return until_ms end
  local from = issued_before < 253402300800 and issued_before * 1000 or 0
  local wanted = until_ms + math.max(0, mine - kept_of(number))
  return math.max(until_ms, math.min(wanted, math.max(now, from) + mine))
end
local since = now - number_of(known[4])
if longer == 0 and since >= 0 and since < tonumber(ARGV[3]) then return {'soon'} end

local dropped, names = 0, {}
local function drop(name)
  redis.call('HDEL', entries, name)
  redis.call('ZREM', changes, name)
  redis.call('ZREM', ends, name)
  dropped = dropped + 1
  if #names < 10 then names[#names + 1] = name end
end
for i = 5, #ARGV do drop(ARGV[i]) end
local all, is_there, moved = redis.call('HGETALL', entries), {}, {}
local sum, last = 0, number_of(known[2])
local function put(name, mark, number, until_ms)
  redis.call('HSET', entries, name, mark .. ' ' .. text(number))
  redis.call('ZADD', changes, text(number), name)
  redis.call('ZADD', ends, text(until_ms), name)
end
for i = 1, #all, 2 do
  local name = all[i]
  local issued_before, until_ms, number = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if is_number(issued_before) and is_number(until_ms) and is_number(number) then
    is_there[name] = true
    local ends_at = longer_end(tonumber(until_ms), tonumber(issued_before), tonumber(number))
    local mark = issued_before .. ' ' .. text(ends_at)
    sum = (sum + tonumber(string.sub(redis.sha1hex(name .. ' ' .. mark), 1, 12), 16)) % PRINTS
    last = math.max(last, tonumber(number))
    if ends_at > tonumber(until_ms) or tonumber(redis.call('ZSCORE', changes, name) or '-1') ~= tonumber(number) then
      moved[#moved + 1] = {name, mark, ends_at}
    else
      redis.call('ZADD', ends, until_ms, name)
    end
  else
    drop(name)
  end
end
-- Numbered anew, so that every node reads them.
last = math.max(last, now * 1024)
for _, entry in ipairs(moved) do
  last = last + 1
  put(entry[1], entry[2], last, entry[3])
end
for _, key in ipairs({changes, ends}) do
  for _, name in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if not is_there[name] then drop(name) end
  end
end
redis.call('HSET', about, 'sum', text(sum), 'last', text(last), 'mended', text(now))
if longer > 0 or kept == 0 then
  local left = {}
  for _, fall in ipairs(falls) do
    if fall[1] > mine then left[#left + 1] = text(fall[1]) .. ':' .. text(fall[2]) end
  end
  redis.call('HSET', about, 'kept', text(mine), 'said', text(now), 'fell', table.concat(left, ' '))
end
local answer = {'mended', text(dropped)}
for _, name in ipairs(names) do answer[#answer + 1] = name end
return answer
