-- Lets what is due stand in its stream: in the order of due times, and of one time in that of
-- acceptance, which begins a member. At most so many, and so many bytes, unless the first alone has
-- more. What its stream does not take waits on, and so do those behind it in that stream; among so many
-- that wait so, others are looked for. KEYS behind `base`: 2 3 4 5 the streams 6 ...:later.
-- Returns how many came, whether more may be due, how many came by rank, what streams said by rank, and
-- how many bytes were read
local function let_come(base, now, most, bytes_max)
  local later, stuck_max = KEYS[base + 6], 1000
  local count, bytes, longest, step, stuck_count, came, stuck = 0, 0, 1, 1, 0, {}, {}
  while count < most and bytes < bytes_max and stuck_count < stuck_max do
    local members = redis.call('ZRANGE', later, '-inf', now, 'BYSCORE', 'LIMIT', stuck_count, step)
    for _, member in ipairs(members) do
      bytes, longest = bytes + #member, math.max(longest, #member)
      local us, rank = string.match(member, '^(%d+)'), tonumber(string.sub(member, 25, 25))
      local is_read = us and #us >= 16 and rank and rank < 4
      if not is_read then rank = 2 end -- Of nobody who knows the form: whoever fails to read it tells it.
      local done, said = not stuck[rank], stuck[rank]
      if done and is_read then
        local accepted = name(string.sub(member, 1, 16), string.sub(member, 17, 24))
        done, said = pcall(add, KEYS[base + 2 + rank], now, 0, 'e', string.sub(member, 26), 'a', accepted)
      elseif done then done, said = pcall(add, KEYS[base + 2 + rank], now, 0, 'e', member) end
      if done then
        redis.call('ZREM', later, member)
        count, came[rank] = count + 1, (came[rank] or 0) + 1
      else stuck_count, stuck[rank] = stuck_count + 1, said end
    end
    if #members < step then return count, false, came, stuck, bytes end
    step = math.max(math.min(8, most - count, math.floor((bytes_max - bytes) / longest)), 1)
  end
  return count, redis.call('ZCOUNT', later, '-inf', now) > stuck_count, came, stuck, bytes
end
