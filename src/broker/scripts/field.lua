-- A field of an entry: p its predecessor, d its body, n on an inbox its number.
local function field(entry, name)
  local fields = entry[2]
  for i = 1, #fields, 2 do if fields[i] == name then return fields[i + 1] end end
end
