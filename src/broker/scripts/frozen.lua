-- In front of a script that reads where nothing may be written: a replica must not answer from the
-- past, and how long something is remembered is not renewed.
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY by its INFO it is a replica')
end
