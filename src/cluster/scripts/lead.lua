-- Takes the leases of partitions, or extends them: each by itself, whatever becomes of the others.
-- KEYS 1 ff:part:{N}: OWNER TOKEN END, the end in ms; a lease that was given back has the owner -. Or none
-- ARGV 1 owner 2 lease ms 3 a random number below 2^20 4... if there is no KEYS 1, such keys: of any slots of this master
-- Returns for each, in their order, 'held TOKEN', 'other LEFT' (another has it, for so many ms yet) or 'failed WHY'
-- The token is the time when the lease was taken, raised above the previous one. It stays while the owner does, also when
-- the lease had ended and nobody took it: so nothing changes hands because Redis was away. An earlier life of this node has
-- nothing to wait for: its token is refused. Where the clock is behind, a failover may have lost the last token: the same
-- is not given again.
local t = redis.call('TIME')
local me, lease, random = unpack(ARGV, 1, 3)
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
-- The end is rounded up and compared with a time that is rounded down, so that it never comes before the holder's own.
local new_end = math.ceil(now_us / 1000) + lease
local lasting = ' ' .. string.format('%.0f', new_end)
local node, life = string.match(me, '^(.*)~(%d+)$')
local function lead(key)
  local owner, token, ends = string.match(redis.call('GET', key) or '', '^(%S+) (%d+) (%d+)')
  if owner ~= me then
    local its_node, its_life = string.match(owner or '', '^(.*)~(%d+)$')
    local earlier = its_node == node and tonumber(its_life) < tonumber(life)
    if its_node and not earlier and tonumber(ends) > now then
      -- No lease lasts longer than one from now on: the clock has stepped back.
      if tonumber(ends) > new_end then
        ends = new_end
        redis.call('SET', key, owner .. ' ' .. token .. lasting)
      end
      return 'other ' .. string.format('%.0f', ends - now)
    end
    local last = tonumber(token or '0')
    token = string.format('%.0f', now_us > last and now_us or last + 1 + random)
  end
  redis.call('SET', key, me .. ' ' .. token .. lasting)
  return 'held ' .. token
end
local keys = #KEYS > 0 and KEYS or {unpack(ARGV, 4)}
local answer = {}
for i = 1, #keys do
  local done, said = pcall(lead, keys[i])
  answer[i] = done and said or 'failed ' .. (type(said) == 'table' and said.err or tostring(said))
end
return answer
