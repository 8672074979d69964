-- ARGV: scan, payload. One attempt less, if there is one. Answers with the count.
local count = tonumber(call('HGET', A, ARGV[2]) or 0)
if count > 0 then
  count = call('HINCRBY', A, ARGV[2], -1)
end
return count
