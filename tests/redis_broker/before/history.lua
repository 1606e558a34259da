-- A page of what is retained and within age, both bounds excluded, in either direction.
-- KEYS 1 ...:s
-- ARGV 1 since ('': none) 2 until ('': none) 3 max age ms 4 most entries 5 most bytes of bodies
--      6 '1': newest first
-- Returns {more '1'|'0', the page}
local from, to = floor(clock(), ARGV[3]), '+'
if ARGV[1] ~= '' and not above(from, ARGV[1]) then from = '(' .. ARGV[1] end
if ARGV[2] ~= '' then to = '(' .. ARGV[2] end
local command = 'XRANGE'
if ARGV[6] == '1' then command, from, to = 'XREVRANGE', to, from end
local entries, more = page(command, KEYS[1], from, to, tonumber(ARGV[4]), tonumber(ARGV[5]))
return {more and '1' or '0', entries}
