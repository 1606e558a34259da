-- How far a position is ahead of Redis' clock, in milliseconds.
local function ahead(id) return math.max(string.match(id, '^%d+') - clock(), 0) end
