-- A publication, at most once per idempotency key.
-- KEYS 1 channel 2 ...:s 3 ...:l, then ...:c on an inbox, then ...:k:KEY where there is one
-- ARGV 1 body 2 random32 3 max entries (0: no history) 4 max age ms 5 life of ...:l ms
--      6 life of ...:k:KEY ms, where there is one; 0 for none, where there is 7 what stands before the
--      body on the channel
-- Returns the id, or {'duplicate', id}
local channel, stream, last = unpack(KEYS)
local body, random, entries, age, life, key_life, context = unpack(ARGV)
local key = key_life and key_life ~= '0' and KEYS[#KEYS]
local cursor = #KEYS > (key and 4 or 3) and KEYS[4]
if key then
  local known = redis.call('GET', key)
  if known then
    -- Changes nothing, but is a write: a WAIT behind it then speaks of the first publication too.
    redis.call('PEXPIRE', key, redis.call('PTTL', key))
    return {'duplicate', known}
  end
end
