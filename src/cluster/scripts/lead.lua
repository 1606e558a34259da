#!lua flags=allow-oom
-- Takes the lease of a partition, or extends it.
-- KEYS 1 ff:part:{N}: OWNER TOKEN END, the end in ms; a lease that was given back has the owner -
-- ARGV 1 owner 2 lease ms
-- Returns {'held', token} or {'other', owner, what is left of its lease in ms}
-- The token is the time when the lease was taken, raised above the previous one. It stays while the owner does, also when
-- the lease had ended and nobody took it. An earlier life of this node has nothing to wait for: its token is refused.
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local owner, token, ends = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+) (%d+)')
if owner ~= ARGV[1] then
  local node, life = string.match(ARGV[1], '^(.*)~(%d+)$')
  local its_node, its_life = string.match(owner or '', '^(.*)~(%d+)$')
  local earlier = its_node == node and tonumber(its_life) < tonumber(life)
  if its_node and not earlier and tonumber(ends) > now then
    return {'other', owner, string.format('%.0f', ends - now)}
  end
  token = string.format('%.0f', math.max(now_us, tonumber(token or '0') + 1))
end
-- The end is rounded up and compared with a time that is rounded down, so that it never comes before the holder's own.
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token .. ' ' .. string.format('%.0f', math.ceil(now_us / 1000) + ARGV[2]))
return {'held', token}
