-- Takes a member out of all three.
local function remove(session, owner)
  redis.call('HDEL', hash, session)
  redis.call('ZREM', names, session)
  counted(owner, -1)
end
