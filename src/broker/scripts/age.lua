-- The lowest position that is within age.
local function within(age, now) return string.format('%.0f-0', math.max(now - age, 0)) end
