-- The one way in which a topic grows. `cursor` only on an inbox: ids stay above it, and entries
-- are numbered (field n), so that the count above the cursor is a subtraction.
-- Where the clock is behind the last id (it stepped back, or that of the old master was ahead),
-- the next id leaves a gap of random size: the one that counts on by one may have been given
-- already, by a master whose newest entries were lost. A sequence that a double does not hold to
-- the unit is followed by the next millisecond.
-- The XADD is the first write: if it fails, nothing was changed; there is no rollback.
local function append(k, body, random, entries, age, life)
  local last = newest(k.stream, k.last) or '0-0'
  local now = clock()
  local ms, seq = cut(last)
  random = tonumber(random)
  if now > ms then ms, seq = now, random
  elseif now == ms then seq = seq + 1
  else seq = seq + 1 + random % 1048576 end
  if seq >= 9007199254740992 then ms, seq = ms + 1, random end
  local cur = k.cursor and redis.call('GET', k.cursor)
  if cur then local c = cut(cur); if ms <= c then ms, seq = c + 1, random end end
  local id = string.format('%.0f-%.0f', ms, seq)
  if entries ~= '0' then
    local add = {'XADD', k.stream, 'MAXLEN', '=', entries, id, 'p', last, 'd', body}
    if k.cursor then
      local e = redis.call('XREVRANGE', k.stream, '+', '-', 'COUNT', 1)
      add[11] = 'n'
      add[12] = string.format('%.0f', (e[1] and tonumber(e[1][2][6]) or 0) + 1)
    end
    redis.call(unpack(add))
    redis.call('XTRIM', k.stream, 'MINID', '=', floor(now, age))
    redis.call('PEXPIRE', k.stream, age)
  else redis.call('UNLINK', k.stream) end -- history switched off: an old stream must not look complete
  redis.call('SET', k.last, id, 'PX', life)
  if cur then redis.call('PEXPIRE', k.cursor, life) end
  return id, last
end
-- Tells every node with interest, by the `spread` that stands above: PUBLISH, in a cluster SPUBLISH.
-- Always the last command of its script: what was told cannot be
-- taken back.
local function tell(k, id, last, body)
  redis.call(spread, k.channel, id .. ' ' .. last .. ' ' .. body)
end
