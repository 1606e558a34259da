-- What this user is refused of a command, in Redis' words. It is run only to hear them.
local function refused(...)
  if not redis.acl_check_cmd(...) then return words(redis.pcall(...)) end
end
