-- Writes down what is about to be done.
-- KEYS 1 the audit
-- ARGV 1 most entries 2 unix ms 3 client 4 app 5 operation 6 target 7 address
-- Returns the entry's id.
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'time', ARGV[2], 'client', ARGV[3],
  'app', ARGV[4], 'operation', ARGV[5], 'target', ARGV[6], 'result', 'attempted', 'address', ARGV[7])
