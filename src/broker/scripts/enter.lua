-- A session becomes a member. A member of another owner (an earlier life of its node) is
-- written anew under this one and neither leaves nor joins.
-- KEYS 1 channel 2 ...:s 3 ...:l 4 ...:h, all of the presence topic
-- ARGV 1 session 2 owner 3 member 4 head of the change 5 random32 6 max entries 7 max age ms
--      8 life of ...:l ms
-- An entry of ...:h is: owner, space, unix ms of its coming, space, member.
-- Returns {members, the newest position}
local held = redis.call('HGET', KEYS[4], ARGV[1])
local owner, came
if held then owner, came = string.match(held, '^(%S+) (%d+) ') end
if owner ~= ARGV[2] then
  came = came or string.format('%.0f', clock())
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[2] .. ' ' .. came .. ' ' .. ARGV[3])
end
local count = redis.call('HLEN', KEYS[4])
if held then return {count, newest(KEYS[2], KEYS[3]) or '0-0'} end
local k = {channel = KEYS[1], stream = KEYS[2], last = KEYS[3]}
local body = ARGV[4] .. ARGV[3] .. cmsgpack.pack(count)
local id, last = append(k, body, ARGV[5], ARGV[6], ARGV[7], ARGV[8])
tell(k, id, last, body)
return {count, id}
