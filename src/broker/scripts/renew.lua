-- What lives longer than that is left as it is.
local function renew(key, life) redis.call('PEXPIRE', key, life, 'GT') end
