-- Publishes an entry. Returns its position. What it does follows, as in a publication.
local function append(channel, stream, last, cursor, context, body, random, entries, age, life)
local key
