-- A publication, at most once per idempotency key.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:k:KEY 5 ...:c
-- ARGV 1 body 2 random32 3 max entries (0: no history) 4 max age ms 5 life of ...:l ms
--      6 idempotency ms (0: no key) 7 '1' on an inbox
-- Returns {'ok', id} or {'duplicate', id}
if ARGV[6] ~= '0' then
  local p = redis.call('GET', KEYS[4])
  if p then
    -- Changes nothing, but is a write: a WAIT behind it then speaks of the first publication too.
    redis.call('PEXPIRE', KEYS[4], redis.call('PTTL', KEYS[4]))
    return {'duplicate', p}
  end
end
local k = {channel = KEYS[1], stream = KEYS[2], last = KEYS[3], cursor = ARGV[7] == '1' and KEYS[5]}
local id, last = append(k, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if ARGV[6] ~= '0' then redis.call('SET', KEYS[4], id, 'PX', ARGV[6]) end
tell(k, id, last, ARGV[1])
return {'ok', id}
