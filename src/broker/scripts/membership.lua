-- What the scripts that change members share. An entry of ...:h is: owner, space, generation,
-- space, unix ms of its coming, space, member. ...:n holds the same sessions in their order, and
-- ...:o how many each owner has; the three change together.
-- A generation is one entering of a session, numbered upwards by its node. What is older than the
-- entry, by generation and then by the owner's incarnation, changes nothing: commands come late.
local channel, stream, last, hash, names, owners = unpack(KEYS)
-- The entry of a session as owner, generation, ms, member; nothing where there is none.
local function entry(session)
  local held = redis.call('HGET', hash, session)
  if held then return string.match(held, '^(%S+) (%d+) (%d+) (.*)$') end
end
local function counted(owner, by)
  if redis.call('HINCRBY', owners, owner, by) <= 0 then redis.call('HDEL', owners, owner) end
end
