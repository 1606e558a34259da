-- What waits in a partition, whoever holds it.
-- KEYS those of the partition
-- Returns {'held', …} as above
return told(0, lengths(0), {})
