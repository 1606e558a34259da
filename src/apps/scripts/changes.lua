-- In front of the scripts of apps.
-- KEYS of all of them 1 apps (name -> JSON) 2 number of the last change 3 lives (name -> LIFE NUMBER, the numbers of the change
-- that made the app and of its last one) 4 removals (names by the number of their removal) 5 about: 'last' number that these
-- scripts have written, how many changes were made by 'others', up to which removal all are 'forgot'
-- Nodes of the release before know 1 and 2 only, and count on from whatever 2 is.
local apps, number_key, lives, removals, about = unpack(KEYS)
local function text(n) return string.format('%.0f', n) end
local function number_of(value) return tonumber(value or '') or 0 end
-- The last number, and how many changes were made by others.
local function numbers()
  local now = number_of(redis.call('GET', number_key))
  local said = redis.call('HMGET', about, 'last', 'others')
  local last, others = number_of(said[1]), number_of(said[2])
  -- A number of the time of which nothing is said is left from a store that was lost.
  if now > last and (last > 0 or now < 1099511627776) then others = others + now - last end
  return math.max(now, last), others
end
-- The number of the next change. It is of the time, so that it is new also where Redis has lost all before it.
local function change(random)
  local last, others = numbers()
  local t = redis.call('TIME')
  local number = math.max((t[1] * 1000 + math.floor(t[2] / 1000)) * 1024 + tonumber(random), last + 1)
  redis.call('SET', number_key, text(number))
  redis.call('HSET', about, 'last', text(number), 'others', text(others))
  return number
end
-- What is said of an app that is there.
local function said_of(name)
  local life, number = string.match(redis.call('HGET', lives, name) or '', '^(%d+) (%d+)$')
  return life or '0', number or '0'
end
