-- A page of what is retained and within age, both bounds excluded, in either direction.
-- KEYS 1 ...:s
-- ARGV 1 since ('': none) 2 until ('': none) 3 max age ms 4 most entries 5 most bytes of bodies
--      6 '1': newest first
-- Returns {more '1'|'0', the page}
local stream = KEYS[1]
local after, before, age, count, bytes, newest_first = unpack(ARGV)
local from, to = within(age, clock()), '+'
if after ~= '' and not above(from, after) then from = '(' .. after end
if before ~= '' then to = '(' .. before end
local command = 'XRANGE'
if newest_first == '1' then command, from, to = 'XREVRANGE', to, from end
local entries, more = page(command, stream, from, to, tonumber(count), tonumber(bytes))
return {more and '1' or '0', entries}
