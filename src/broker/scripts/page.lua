-- Reads from `from` towards `to`, at most `count` entries and about `bytes` bytes of bodies, at
-- least one entry if there is one. In steps, so that a page of large bodies is not first read
-- whole into this script. Returns the entries as {id, prev, body}, and whether there are more.
local function page(command, stream, from, to, count, bytes)
  local out, size = {}, 0
  while true do
    local step = redis.call(command, stream, from, to, 'COUNT', math.min(32, count + 1 - #out))
    if #step == 0 then return out, false end
    for _, e in ipairs(step) do
      local body = field(e, 'd')
      if #out == count or (#out > 0 and size + #body > bytes) then return out, true end
      size = size + #body
      out[#out + 1] = {e[1], field(e, 'p'), body}
    end
    from = '(' .. step[#step][1]
  end
end
