-- Writes down what is about to be done. Beyond the bound the oldest entry of the client that has most goes.
-- KEYS 1 the audit 2 its entries by client, in their order 3 how many each client has
-- ARGV 1 most entries 2 unix ms 3 client 4 app 5 operation 6 target 7 address
-- Returns the entry's id.
local audit, by_client, counts = unpack(KEYS)
local function named(client, id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return client .. ':' .. string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local id = redis.call('XADD', audit, '*', 'time', ARGV[2], 'client', ARGV[3], 'app', ARGV[4],
  'operation', ARGV[5], 'target', ARGV[6], 'result', 'attempted', 'address', ARGV[7])
redis.call('ZADD', by_client, 0, named(ARGV[3], id))
redis.call('ZINCRBY', counts, 1, ARGV[3])

-- An earlier release wrote entries of which this list does not know. They are the first to go.
local function unlisted()
  local first = redis.call('XRANGE', audit, '-', '+', 'COUNT', 1)[1]
  for i = 1, #first[2], 2 do
    if first[2][i] == 'client' and redis.call('ZSCORE', by_client, named(first[2][i + 1], first[1])) then
      return nil
    end
  end
  return first[1]
end
local function oldest_of_most()
  local client = redis.call('ZREVRANGE', counts, 0, 0)[1]
  if not client then return nil end
  local from, to = '[' .. client .. ':', '(' .. client .. ';'
  local name = redis.call('ZRANGEBYLEX', by_client, from, to, 'LIMIT', 0, 1)[1]
  if not name then
    redis.call('ZREM', counts, client)
    return nil
  end
  redis.call('ZREM', by_client, name)
  if tonumber(redis.call('ZINCRBY', counts, -1, client)) <= 0 then redis.call('ZREM', counts, client) end
  local ms, seq = string.match(name, ':0*(%d+)-0*(%d+)$')
  return ms .. '-' .. seq
end
-- So many that a stream of which another release kept more comes down.
for _ = 1, 100 do
  local count = redis.call('XLEN', audit)
  if count <= tonumber(ARGV[1]) then break end
  local gone = count > redis.call('ZCARD', by_client) and unlisted() or oldest_of_most()
  if gone then redis.call('XDEL', audit, gone) end
end
return id
