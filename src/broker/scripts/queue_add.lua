-- How far ahead of the clock an id may be that a clock gave: a day.
local far_ms = 86400000
local function is_far(id, now) return tonumber(string.match(id, '^%d+')) > now + far_ms end
-- Makes a stream anew, so that what is added gets ids of now: with the highest id of all (an XADD can
-- name any) nothing can ever be added behind it, and newer servers let nobody set a last id back. What
-- it has keeps its id, or gets one of now where that was far ahead. Of one without anything the last id
-- is above all that were ever given.
local function renew(stream, now)
  local kept = redis.call('XRANGE', stream, '-', '+')
  for _, e in ipairs(kept) do
    if #e[2] > 4000 then error('ERR ' .. stream .. ' has an entry of ' .. #e[2] / 2 .. ' fields', 0) end
  end
  redis.call('UNLINK', stream)
  for _, e in ipairs(kept) do
    redis.call('XADD', stream, is_far(e[1], now) and '*' or e[1], unpack(e[2]))
  end
  if #kept == 0 then
    local id = string.format('%.0f-18446744073709551615', now)
    redis.call('XADD', stream, id, 'x', '')
    redis.call('XDEL', stream, id)
  end
end
-- Whether nothing can be added behind the last id, and now it can. A stream of at most so many entries
-- is made anew.
local function mended(said, stream, now, most)
  if not string.find(words(said), 'exhausted', 1, true) or redis.call('XLEN', stream) > most then return false end
  renew(stream, now)
  return true
end
local function add(stream, now, most, ...)
  local done, said = pcall(redis.call, 'XADD', stream, '*', ...)
  if done then return said end
  if not mended(said, stream, now, most) then error(said, 0) end
  return redis.call('XADD', stream, '*', ...)
end
