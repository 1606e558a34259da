-- What `look` finds in a partition whose lease has this token and an owner; nil of another. With what
-- Redis said where it failed. `lease` where it was read already.
local function looked(base, token, look, lease)
  local function if_held()
    local owner, its = string.match(lease or redis.call('GET', KEYS[base + 1]) or '', '^(%S+) (%d+) ')
    if its == token and owner ~= '-' then return look(base) end
  end
  local done, part = pcall(if_held)
  if done then return part end
  return nil, words(part) .. ' (' .. KEYS[base + 1] .. ')'
end
