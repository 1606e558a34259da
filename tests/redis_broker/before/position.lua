-- What every script of a topic begins with (after its own #! line): positions and the clock.
-- Positions are compared as strings: a client's may have more digits than a double holds.
local function above(a, b)
  local x, y = string.match(a, '^(%d+)-(%d+)$'); local v, w = string.match(b, '^(%d+)-(%d+)$')
  if x == v then x, v = y, w end
  return #x > #v or (#x == #v and x > v)
end
local function cut(p) local a, b = string.match(p, '^(%d+)-(%d+)$'); return tonumber(a), tonumber(b) end
local function clock() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
-- The topic's newest position: ...:l, or where that is gone the newest entry; nil for neither.
local function newest(stream, last)
  local id = redis.call('GET', last)
  if id then return id end
  local e = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return e[1] and e[1][1]
end
-- The beginning of what is within age, as a bound for XRANGE.
local function floor(now, age) return string.format('%.0f-0', math.max(now - age, 0)) end
-- Reads from `from` towards `to`, at most `count` entries and about `bytes` bytes of bodies, at
-- least one entry if there is one. In steps, so that a page of large bodies is not first read
-- whole into this script. Returns the entries as {id, prev, body}, and whether there are more.
local function page(command, stream, from, to, count, bytes)
  local out, size = {}, 0
  while true do
    local step = redis.call(command, stream, from, to, 'COUNT', math.min(32, count + 1 - #out))
    if #step == 0 then return out, false end
    for _, e in ipairs(step) do
      local body = e[2][4]
      if #out == count or (#out > 0 and size + #body > bytes) then return out, true end
      size = size + #body
      out[#out + 1] = {e[1], e[2][2], body}
    end
    from = '(' .. step[#step][1]
  end
end
