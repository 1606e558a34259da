-- The keys of a partition are eight, behind `base`: 1 ff:part:{N} 2 3 4 5 its streams, the most urgent
-- first 6 ...:later 7 ...:dead 8 ...:heads.
-- Lengths of the streams (1 to 4), and of `later` and `dead` unless they are known not to exist. All
-- that a foreign type under one of these keys can fail fails here.
local function lengths(base, is_short)
  local part = {}
  for rank = 1, 4 do part[rank] = redis.call('XLEN', KEYS[base + 1 + rank]) end
  part.later = is_short and 0 or redis.call('ZCARD', KEYS[base + 6])
  part.dead = is_short and 0 or redis.call('XLEN', KEYS[base + 7])
  return part
end
-- As it is answered, in one text with a space between: held, lengths of streams, of later, of dead, next
-- due or -, oldest of each stream or -. `oldest` has those that are known.
local function told(base, part, oldest)
  local due = part.later > 0 and redis.call('ZRANGE', KEYS[base + 6], 0, 0, 'WITHSCORES')[2]
  due = due and string.format('%.0f', math.max(math.min(tonumber(due) or 0, 9e15), 0)) or '-'
  local answer = {'held', part[1], part[2], part[3], part[4], part.later, part.dead, due}
  for rank = 1, 4 do
    local id = part[rank] > 0 and oldest[rank] or '-'
    if part[rank] > 0 and id == '-' then
      local first = redis.call('XRANGE', KEYS[base + 1 + rank], '-', '+', 'COUNT', 1)[1]
      id = first and first[1] or '-'
    end
    answer[8 + rank] = id
  end
  return table.concat(answer, ' ')
end
