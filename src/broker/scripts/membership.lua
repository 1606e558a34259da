-- What the scripts that change members share. An entry of ...:h is: owner, space, generation,
-- space, unix ms of its coming, space, member. ...:n holds the same sessions in their order, and
-- ...:o how many each owner has; the three change together.
-- A generation is one entering of a session, numbered upwards by its node. What is older than the
-- entry, by generation and then by the owner's incarnation, changes nothing: commands come late.
-- The entry of a session as owner, generation, ms, member; nothing where there is none.
local function entry(hash, session)
  local held = redis.call('HGET', hash, session)
  if held then return string.match(held, '^(%S+) (%d+) (%d+) (.*)$') end
end
local function incarnation(owner) return tonumber(string.match(owner, '~(%d+)$')) end
local function counted(owners, owner, by)
  if redis.call('HINCRBY', owners, owner, by) <= 0 then redis.call('HDEL', owners, owner) end
end
-- Tells a change of members, with how many there are after it. Returns its position.
local function change(k, head, member, random, entries, age, life)
  local body = head .. member .. cmsgpack.pack(redis.call('HLEN', k.hash))
  local id, last = append(k, body, random, entries, age, life)
  tell(k, id, last, body)
  return id
end
local function remove(k, session, owner)
  redis.call('HDEL', k.hash, session)
  redis.call('ZREM', k.names, session)
  counted(k.owners, owner, -1)
end
local k = {channel = KEYS[1], stream = KEYS[2], last = KEYS[3], hash = KEYS[4], names = KEYS[5], owners = KEYS[6]}
