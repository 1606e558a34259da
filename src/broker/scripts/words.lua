-- What an error says.
local function words(err) return type(err) == 'table' and err.err or tostring(err) end
