-- The name of an entry that is to come later: when it was accepted, and its random bytes in hex.
local function name(us, random)
  return us .. '-' .. string.gsub(random, '.', function(c) return string.format('%02x', string.byte(c)) end)
end
