-- The keys of a partition are eight, behind `base`: 1 ff:part:{N} 2 3 4 5 its streams, the most urgent
-- first 6 ...:later 7 ...:dead 8 ...:heads.
-- What Redis said of a key of this partition alone, a foreign type for example: the first that it said.
-- All that does not need that key goes on.
local function ill(part, key, said) part.fault = part.fault or words(said) .. ' (' .. key .. ')' end
-- What a function brings; nil where it fails.
local function try(part, key, f, ...)
  local done, said = pcall(f, ...)
  if done then return said end
  ill(part, key, said)
end
local function fill(base, part, is_short)
  for rank = 1, 4 do part[rank] = redis.call('XLEN', KEYS[base + 1 + rank]) end
  part.later = is_short and 0 or redis.call('ZCARD', KEYS[base + 6])
  part.dead = is_short and 0 or redis.call('XLEN', KEYS[base + 7])
end
-- Lengths of the streams (1 to 4), and of `later` and `dead` unless they are known not to exist; 0 where
-- a key cannot be read.
local function lengths(base, is_short)
  local part = {}
  if pcall(fill, base, part, is_short) then return part end
  for rank = 1, 4 do
    part[rank] = try(part, KEYS[base + 1 + rank], redis.call, 'XLEN', KEYS[base + 1 + rank]) or 0
  end
  part.later = try(part, KEYS[base + 6], redis.call, 'ZCARD', KEYS[base + 6]) or 0
  part.dead = try(part, KEYS[base + 7], redis.call, 'XLEN', KEYS[base + 7]) or 0
  return part
end
-- To look at an entry is to read all of it. So many bytes are read for that, and one entry more.
local looks_left = 262144
local function bytes_of(fields)
  local bytes = 0
  for i = 1, #fields do bytes = bytes + #fields[i] end
  return bytes
end
-- When the next is due. Where nobody looked any more, and where what is due cannot come: soon.
local function next_due(base, part, now)
  if part.later <= 0 then return '-' end
  if looks_left <= 0 or part.is_stuck then return string.format('%.0f', now + 500) end
  local first = redis.call('ZRANGE', KEYS[base + 6], 0, 0, 'WITHSCORES')
  if not first[2] then return '-' end
  looks_left = looks_left - #first[1]
  return string.format('%.0f', math.max(math.min(tonumber(first[2]) or 0, 9e15), 0))
end
-- As it is answered, in one text with a space between: held, lengths of streams, of later, of dead, next
-- due or -, oldest of each stream or -. `oldest` has those that are known. With what is ill behind it.
local function told(base, part, oldest, now)
  local due = try(part, KEYS[base + 6], next_due, base, part, now) or '-'
  local answer = {'held', part[1], part[2], part[3], part[4], part.later, part.dead, due}
  for rank = 1, 4 do
    local id = part[rank] > 0 and oldest[rank] or '-'
    if part[rank] > 0 and id == '-' and looks_left > 0 then
      local stream = KEYS[base + 1 + rank]
      local found = try(part, stream, redis.call, 'XRANGE', stream, '-', '+', 'COUNT', 1)
      if found and found[1] then
        id, looks_left = found[1][1], looks_left - bytes_of(found[1][2])
      end
    end
    answer[8 + rank] = id
  end
  local text = table.concat(answer, ' ')
  return part.fault and {text, part.fault} or text
end
