-- Whether position a is above b. As texts: a client's may have more digits than a double holds.
local function above(a, b)
  local x, y = string.match(a, '^(%d+)-(%d+)$'); local v, w = string.match(b, '^(%d+)-(%d+)$')
  if x == v then x, v = y, w end
  return #x > #v or (#x == #v and x > v)
end
