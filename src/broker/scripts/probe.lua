-- A probe of the whole way: through the gate that publications pass (a demoted master refuses it,
-- which a plain PUBLISH would not), and back by the feed. In a cluster its channel has a slot that
-- is here, but is not declared: it would be asked for elsewhere while its slot moves.
-- ARGV 1 channel 2 what the feed should hear
local channel, stamp = unpack(ARGV)
return redis.call(spread, channel, stamp)
