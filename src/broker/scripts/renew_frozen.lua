local function renew() end
