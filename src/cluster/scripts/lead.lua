#!lua flags=allow-oom
-- Takes the lease of a partition, or extends it.
-- KEYS 1 ff:part:{N}: OWNER TOKEN END, the end in ms; a lease that was given back has the owner -
-- ARGV 1 owner 2 lease ms 3 a random number below 2^20
-- Returns {'held', token} or {'other', owner, what is left of its lease in ms}
-- The token is the time when the lease was taken, raised above the previous one. It stays while the owner does, also when
-- the lease had ended and nobody took it: so nothing changes hands because Redis was away. An earlier life of this node has
-- nothing to wait for: its token is refused. Where the clock is behind, a failover may have lost the last token: the same
-- is not given again.
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
-- The end is rounded up and compared with a time that is rounded down, so that it never comes before the holder's own.
local new_end = math.ceil(now_us / 1000) + ARGV[2]
local owner, token, ends = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+) (%d+)')
if owner ~= ARGV[1] then
  local node, life = string.match(ARGV[1], '^(.*)~(%d+)$')
  local its_node, its_life = string.match(owner or '', '^(.*)~(%d+)$')
  local earlier = its_node == node and tonumber(its_life) < tonumber(life)
  if its_node and not earlier and tonumber(ends) > now then
    -- No lease lasts longer than one from now on: the clock has stepped back.
    if tonumber(ends) > new_end then
      ends = new_end
      redis.call('SET', KEYS[1], owner .. ' ' .. token .. ' ' .. string.format('%.0f', ends))
    end
    return {'other', owner, string.format('%.0f', ends - now)}
  end
  local last = tonumber(token or '0')
  token = string.format('%.0f', now_us > last and now_us or last + 1 + ARGV[3])
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token .. ' ' .. string.format('%.0f', new_end))
return {'held', token}
