-- Takes entries out of their streams, and publishes or buries each, in one step. To take one out is to
-- claim it: what is not there any more was moved before. Nothing is claimed in a partition of another
-- token, nor behind an error in the same stream; and nothing at all where this user lacks a command.
-- Whose channel this user may not tell is buried, and never in its topic too: that is asked before it is
-- claimed. (Whether the user may have the keys a server asks before it runs a script.)
-- KEYS of each partition eight, then of each entry that is published channel ...:s ...:l, and ...:c of an
--      inbox
-- ARGV 1 how many partitions 2 most dead letters 3 life of a dead letter ms, then the token of each
--      partition, then of each entry two. Of one that is published: 'publish', its partition (from 1),
--      rank (from 0), id, 1 for an inbox, random32, max entries, max age ms, life of ...:l ms, and, behind
--      the lengths of the first and of what of the second stands before, what stands before the body on
--      the channel, and around it in its blob; then its body. Of one
--      that is buried: 'bury', its partition, rank, id, why, the same for people; then its blob.
-- Returns {dead letters dropped, {how each partition stands}, {the position of each entry, or what else
-- became of it: 'buried', 'failed', 'gone', 'refused'}}. A partition stands as a text with a space
-- between: held, dead letters or -, then of each stream that entries were of rank and length; or as
-- after a fetch.
local count, dead_max, now = tonumber(ARGV[1]), tonumber(ARGV[2]), clock()
local oldest = string.format('%.0f-0', math.max(now - ARGV[3], 0))
local parts, states, whys, ends, dropped = {}, {}, {}, {}, 0
local doing -- The key that is at work.
local function lacks(...)
  local said = refused(...)
  return said and string.find(said, ' run th', 1, true)
end
local function lacks_any(channel, key)
  return lacks('XADD', key, '*', 'd', '') or lacks('XDEL', key, '0-1') or lacks('XTRIM', key, 'MINID', '0')
    or channel and (lacks(spread, channel, '') or lacks('SET', key, '') or lacks('PEXPIRE', key, '1')
    or lacks('GET', key) or lacks('XREVRANGE', key, '+', '-', 'COUNT', '1'))
end
local at, key = 4 + count, 8 * count + 1
if ARGV[at] and lacks_any(KEYS[key], KEYS[2]) then
  return redis.error_reply('NOPERM this user may not publish what is queued')
end
local graves = {}
for base = 0, 8 * (count - 1), 8 do graves[#graves + 1] = KEYS[base + 7] end
local is_short = redis.call('EXISTS', unpack(graves)) == 0
-- Where there is no grave a topic is looked at before an entry of it is claimed.
local function begin(base)
  local has_grave = is_short or pcall(redis.call, 'XLEN', KEYS[base + 7])
  return {ranks = {}, stopped = {}, has_grave = has_grave}
end
for i = 1, count do
  local part
  part, whys[i] = looked(8 * (i - 1), ARGV[3 + i], begin)
  parts[i] = part or false
end
local function trim(base, part, ...)
  local trimmed = redis.call('XTRIM', KEYS[base + 7], ...)
  dropped, part.dead = dropped + trimmed, part.dead - trimmed
end
local function bury(base, part, rank, id, why, said, blob)
  local dead = KEYS[base + 7]
  doing = dead
  if not part.dead then
    part.dead = redis.call('XLEN', dead)
    trim(base, part, 'MINID', oldest)
    trim(base, part, 'MAXLEN', dead_max)
  end
  local letter = add(dead, now, dead_max, 'e', blob, 'q', rank, 'id', id, 'why', why, 'error', said)
  part.dead = part.dead + 1
  if is_far(letter, now) then -- Letters of such ids would outlive their age.
    renew(dead, now)
    letter = redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1][1]
  end
  return letter
end
-- The name that an entry was answered with: of one that was to come later it stands beside it. One of
-- which nothing is kept (an empty list behind its version) is too long to be read again.
local function name_of(stream, id, blob)
  local found = #blob > 2 and redis.call('XRANGE', stream, id, id)[1]
  local fields = found and found[2] or {}
  return fields[1] == 'e' and fields[3] == 'a' and fields[4] or id
end
-- A letter that is one too many can be taken back, an entry that was claimed cannot: so it is buried first.
local function put_aside(base, part, rank, id, why, said, blob)
  local stream, dead = KEYS[base + 2 + rank], KEYS[base + 7]
  doing = stream
  local no = refused('XDEL', stream, '0-1') or refused('XDEL', dead, '0-1')
  if no then error(no, 0) end
  local letter = bury(base, part, rank, name_of(stream, id, blob), why, said, blob)
  doing = stream
  local done, found = pcall(redis.call, 'XDEL', stream, id)
  if done and found == 1 then
    trim(base, part, 'MAXLEN', dead_max)
    return true
  end
  part.dead = part.dead - redis.call('XDEL', dead, letter)
  if not done then error(found, 0) end
end
-- Why a topic cannot be written, by what stands there.
local function foreign(stream, last, cursor)
  local function look()
    redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    local id = redis.call('GET', last)
    if id and not string.match(id, '^%d+%-%d+$') then error('ERR no id under ' .. last, 0) end
    if cursor then redis.call('GET', cursor) end
  end
  local done, said = pcall(look)
  return not done and words(said)
end
-- Nowhere else to go: its topic and the grave are both foreign, in a way that nobody foresaw.
local function put_back(stream, base, rank, random, blob)
  if pcall(add, stream, now, 0, 'e', blob) then return end
  local member = string.format('%013.0f000', now) .. string.format('%08d', random % 100000000) .. rank .. blob
  redis.call('ZADD', KEYS[base + 6], now, member)
end
local function whole(head_length, around, body)
  return string.sub(around, 1, head_length) .. body .. string.sub(around, head_length + 1)
end
local function publish(base, part, rank, id, more, body, key)
  local stream = KEYS[base + 2 + rank]
  local inbox, random, entries, age, life, context_length, head_length, around =
    string.match(more, '^(%d) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  local context
  if context_length ~= '0' then
    context, around = string.sub(around, 1, context_length), string.sub(around, context_length + 1)
  end
  local its, last, cursor = KEYS[key + 1], KEYS[key + 2], inbox == '1' and KEYS[key + 3]
  local why = refused(spread, KEYS[key], '') or not part.has_grave and foreign(its, last, cursor)
  if why then
    local blob = whole(head_length, around, body)
    return put_aside(base, part, rank, id, 'failed', string.sub(why, 1, 512), blob) and 'failed' or 'gone'
  end
  doing = stream
  if redis.call('XDEL', stream, id) == 0 then return 'gone' end
  local done, said = pcall(append, KEYS[key], its, last, cursor, context, body, random, entries, age, life)
  if done then return said end
  local blob = whole(head_length, around, body)
  done, why = pcall(bury, base, part, rank, id, 'failed', string.sub(words(said), 1, 512), blob)
  if done then
    trim(base, part, 'MAXLEN', dead_max)
    return 'failed'
  end
  put_back(stream, base, rank, random, blob)
  error(why, 0)
end
while ARGV[at] do
  local what, i, rank, id, more = string.match(ARGV[at], '^(%a+) (%d+) (%d) (%S+) (.*)$')
  local base, part = 8 * (i - 1), parts[tonumber(i)]
  local is_published = what == 'publish'
  local done, said = true, 'refused'
  if part and not part.stopped[rank] then
    part.ranks[rank] = id
    if is_published then done, said = pcall(publish, base, part, rank, id, more, ARGV[at + 1], key)
    else
      local why, told = string.match(more, '^(%S+) (.*)$')
      done, said = pcall(put_aside, base, part, rank, id, why, told, ARGV[at + 1])
      said = done and (said and 'buried' or 'gone') or said
    end
    if not done then
      part.stopped[rank] = true
      part.why, said = part.why or words(said) .. ' (' .. doing .. ')', 'refused'
    end
  end
  ends[#ends + 1] = said
  at = at + 2
  if is_published then key = key + (string.sub(more, 1, 1) == '1' and 4 or 3) end
end
local function state(base, part)
  local answer = {'held', part.dead or '-'}
  for rank, id in pairs(part.ranks) do
    local stream = KEYS[base + 2 + rank]
    local length = redis.call('XLEN', stream)
    if length == 0 and is_far(id, now) then pcall(renew, stream, now) end
    answer[#answer + 1] = rank
    answer[#answer + 1] = length
  end
  return table.concat(answer, ' ')
end
for i = 1, count do
  local part, why = parts[i], whys[i]
  if part then why = part.why end
  if part and not why then states[i] = state(8 * (i - 1), part)
  else states[i] = why and {'failed', why} or {'refused'} end
end
return {dropped, states, ends}
