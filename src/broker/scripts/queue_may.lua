-- Which topics this user may not write, where a move was refused as a whole: a server looks at the keys of
-- a script before it runs. No key is touched.
-- ARGV of each topic four: channel ...:s ...:l, and ...:c of an inbox or nothing
-- Returns for each what Redis says, or nothing; nothing too where a command itself is refused, for that is
-- no fault of a topic
local function topical(...)
  local said = refused(...)
  return said and not string.find(said, ' run th', 1, true) and said
end
local answer = {}
for i = 1, #ARGV, 4 do
  local channel, stream, last, cursor = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  answer[#answer + 1] = topical(spread, channel, '') or topical('XADD', stream, '*', 'd', '')
    or topical('XREVRANGE', stream, '+', '-', 'COUNT', '1') or topical('SET', last, '') or topical('GET', last)
    or cursor ~= '' and (topical('PEXPIRE', cursor, '1') or topical('GET', cursor)) or ''
end
return answer
