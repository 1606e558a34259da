-- The one way in which a topic grows: these lines stand in a publication as they are, elsewhere in a
-- function (change.lua). They take `stream`, `last` and on an inbox `cursor`, which are keys, and
-- `body`, `random`, `entries`, `age`, `life`. They make `id` and `prev`, the one before it.
-- Ids of an inbox stay above its cursor, and its entries are numbered (field n), so that the count
-- above the cursor is a subtraction.
-- Where the clock is behind the last id (it stepped back, or that of the old master was ahead),
-- the next id leaves a gap of random size: the one that counts on by one may have been given
-- already, by a master whose newest entries were lost. A sequence that a double does not hold to
-- the unit is followed by the next millisecond. An id ahead of the clock is marked by a sequence that
-- no other has, of eleven digits or more.
-- The XADD is the first write: if it fails, nothing was changed; there is no rollback.
local prev = redis.call('GET', last)
local is_due = not prev
if is_due then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  prev = newest and newest[1] or '0-0'
end
local time = redis.call('TIME')
local second = time[1] * 1000
local now, prev_ms = second + math.floor(time[2] / 1000), tonumber(string.match(prev, '^%d+'))
local ms, seq = now, random
if now <= prev_ms then
  ms, seq = prev_ms, string.match(prev, '%d+$') + 1
  if now < ms then seq = seq + random % 1048576 end
  if seq >= 9007199254740992 then ms, seq = ms + 1, random end
end
local read_to = cursor and redis.call('GET', cursor)
if read_to then
  local read_ms = tonumber(string.match(read_to, '^%d+'))
  if ms <= read_ms then ms, seq = read_ms + 1, random end
end
if now < ms and seq * 1 < 10000000000 then seq = seq + 10000000000 end
local id = string.format('%.0f-%.0f', ms, seq)
-- Once a second, counted by ids, what is over age is freed (every reader leaves it out), and lives
-- are renewed by a second more, so that nothing ends before it should have if each publication had
-- renewed it. Where that second would be a large part of the age, each does; so does each while ids
-- are ahead of the clock, and the first behind one that was: it may be of a second that nobody renewed
-- in. Entries live from now on, or they would outlive their age by as much as ids are ahead; the last
-- id and the cursor from the id on, or an id below could be given.
local is_brief = age * 1 < 60000
is_due = is_due or is_brief or prev_ms < second or ms >= second + 1000 or #prev > 24
if entries == '0' then
  redis.call('UNLINK', stream) -- history switched off: an old stream must not look complete
elseif cursor then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local number = (newest and newest[2][6] or 0) + 1 -- behind p and d
  is_due = is_due or not newest
  redis.call('XADD', stream, 'MAXLEN', entries, id, 'p', prev, 'd', body, 'n', number)
elseif not redis.call('XADD', stream, 'NOMKSTREAM', 'MAXLEN', entries, id, 'p', prev, 'd', body) then
  is_due = true
  redis.call('XADD', stream, 'MAXLEN', entries, id, 'p', prev, 'd', body)
end
if is_due then
  local more = is_brief and 0 or 1000
  if entries ~= '0' then
    redis.call('XTRIM', stream, 'MINID', string.format('%.0f-0', math.max(now - age, 0)))
    redis.call('PEXPIRE', stream, age + more)
  end
  more = more + ms - now
  redis.call('SET', last, id, 'PX', life + more)
  if read_to then redis.call('PEXPIRE', cursor, life + more) end
else
  redis.call('SET', last, id, 'KEEPTTL')
end
