-- Takes entries out of their streams, and publishes or buries each, in one step. To take one out is to
-- claim it: what is not there any more was moved before. Nothing is claimed in a partition of another
-- token, nor behind an error of its own keys; and nothing at all where this user may not publish.
-- KEYS of each partition eight, then of each entry that is published channel ...:s ...:l, and ...:c of an
--      inbox
-- ARGV 1 how many partitions 2 most dead letters 3 life of a dead letter ms, then the token of each
--      partition, then of each entry two. Of one that is published: 'publish', its partition (from 1),
--      rank (from 0), id, 1 for an inbox, random32, max entries, max age ms, life of ...:l ms, and, behind
--      how many bytes of it stand before, what stands around the body in its blob; then its body. Of one
--      that is buried: 'bury', its partition, rank, id, why, the same for people; then its blob.
-- Returns {dead letters dropped, {how each partition stands}, {the position of each entry, or what else
-- became of it: 'buried', 'failed', 'gone', 'refused'}}. A partition stands as a text with a space
-- between: held, dead letters or -, then of each stream that entries were of rank and length; or as
-- after a fetch.
local count, dead_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = string.format('%.0f-0', math.max(clock() - ARGV[3], 0))
local parts, states, whys, ends, dropped = {}, {}, {}, {}, 0
local function begin() return {ranks = {}} end
for i = 1, count do
  local part
  part, whys[i] = looked(8 * (i - 1), ARGV[3 + i], begin)
  parts[i] = part or false
end
-- What can fail of burying fails here.
local function open_grave(base, part)
  if part.dead then return end
  redis.call('XTRIM', KEYS[base + 7], 'MINID', oldest)
  part.dead = redis.call('XLEN', KEYS[base + 7])
end
local function bury(base, part, rank, id, why, said, blob)
  open_grave(base, part)
  redis.call('XADD', KEYS[base + 7], 'MAXLEN', dead_max, '*', 'e', blob, 'q', rank, 'id', id, 'why', why,
    'error', said)
  local over = math.max(part.dead + 1 - dead_max, 0)
  part.dead, dropped = part.dead + 1 - over, dropped + over
end
local function publish(base, part, rank, id, more, body, key)
  local stream = KEYS[base + 2 + rank]
  part.ranks[rank] = true
  if redis.call('XDEL', stream, id) == 0 then return 'gone' end
  local inbox, random, entries, age, life, head_length, around =
    string.match(more, '^(%d) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  local done, said = pcall(append, KEYS[key], KEYS[key + 1], KEYS[key + 2], inbox == '1' and KEYS[key + 3],
    body, random, entries, age, life)
  if done then return said end
  local blob = string.sub(around, 1, head_length) .. body .. string.sub(around, head_length + 1)
  local is_buried, why = pcall(bury, base, part, rank, id, 'failed', string.sub(words(said), 1, 512), blob)
  if is_buried then return 'failed' end
  redis.call('XADD', stream, '*', 'e', blob) -- Two foreign keys, and nowhere else to go.
  error(why, 0)
end
local function put_aside(base, part, rank, id, more, blob)
  part.ranks[rank] = true
  open_grave(base, part)
  if redis.call('XDEL', KEYS[base + 2 + rank], id) == 0 then return 'gone' end
  local why, said = string.match(more, '^(%S+) (.*)$')
  bury(base, part, rank, id, why, said, blob)
  return 'buried'
end
local function may(channel, stream)
  return redis.acl_check_cmd(spread, channel, '') and redis.acl_check_cmd('XADD', stream, '*', 'd', '')
    and redis.acl_check_cmd('SET', stream, '') and redis.acl_check_cmd('XDEL', KEYS[2], '0-1')
    and redis.acl_check_cmd('XADD', KEYS[7], '*', 'e', '')
end
local at, key = 4 + count, 8 * count + 1
if KEYS[key] and not may(KEYS[key], KEYS[key + 1]) then
  return redis.error_reply('NOPERM this user may not publish what is queued')
end
while ARGV[at] do
  local what, i, rank, id, more = string.match(ARGV[at], '^(%a+) (%d+) (%d) (%S+) (.*)$')
  local base, part = 8 * (i - 1), parts[tonumber(i)]
  local is_published = what == 'publish'
  local done, said = true, 'refused'
  if part and not part.why then
    if is_published then done, said = pcall(publish, base, part, tonumber(rank), id, more, ARGV[at + 1], key)
    else done, said = pcall(put_aside, base, part, tonumber(rank), id, more, ARGV[at + 1]) end
    if not done then part.why, said = words(said), 'refused' end
  end
  ends[#ends + 1] = said
  at = at + 2
  if is_published then key = key + (string.sub(more, 1, 1) == '1' and 4 or 3) end
end
local function state(base, part)
  local answer = {'held', part.dead or '-'}
  for rank in pairs(part.ranks) do
    answer[#answer + 1] = rank
    answer[#answer + 1] = redis.call('XLEN', KEYS[base + 2 + rank])
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
