-- The topic's newest position: ...:l, or where that is gone the newest entry; nil for neither.
local function newest(stream, last)
  local id = redis.call('GET', last)
  if id then return id end
  local e = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return e[1] and e[1][1]
end
