-- A probe of the whole way: through the gate that publications pass (a demoted master refuses it,
-- which a plain PUBLISH would not), and back by the feed.
-- KEYS 1 channel
-- ARGV 1 what the feed should hear
return redis.call('PUBLISH', KEYS[1], ARGV[1])
