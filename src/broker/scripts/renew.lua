local function renew(key, life) redis.call('PEXPIRE', key, life) end
