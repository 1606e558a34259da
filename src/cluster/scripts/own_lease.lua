-- What stands in Redis about a node's own lease while nothing can be written. Changes nothing.
-- KEYS 1 leases 2 incarnations 3 the last heartbeat of all (as heartbeat.lua has them)   ARGV 1 name
-- Returns, each empty where it is not there: now in ms, the end of the lease, INCARNATION HOLDER, and when the last heartbeat
-- of all was answered, in ms
local leases, incarnations, last_beat = unpack(KEYS)
local name = ARGV[1]
local t = redis.call('TIME')
local lease_end = redis.call('ZSCORE', leases, name)
return {
  string.format('%.0f', math.floor((t[1] * 1000000 + t[2]) / 1000)),
  lease_end and string.format('%.0f', lease_end) or '',
  redis.call('HGET', incarnations, name) or '',
  string.match(redis.call('GET', last_beat) or '', '^%d+') or ''
}
