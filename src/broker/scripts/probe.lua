-- A probe of the whole way: through the gate that publications pass (a demoted master refuses it,
-- which a plain PUBLISH would not), and back by the feed. It names no key, so that every master of
-- a cluster runs it; a classic message reaches the feed of each, whatever slots it has.
-- ARGV 1 channel 2 what the feed should hear
return redis.call('PUBLISH', ARGV[1], ARGV[2])
