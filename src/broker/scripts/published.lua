if key then redis.call('SET', key, id, 'PX', key_life) end
-- Tells every node with interest, by the `spread` that stands above: PUBLISH, in a cluster SPUBLISH.
-- The last command: what was told cannot be taken back.
redis.call(spread, channel, id .. ' ' .. prev .. ' ' .. (context or '') .. body)
return id
