-- ARGV: scan, now, payload, time to live of attempts in milliseconds. Answers with the count; 0 if closed.
if find(ARGV[2]) == 'c' then
  return 0
end
local count = call('HINCRBY', A, ARGV[3], 1)
live(A, math.max(tonumber(ARGV[4]), call('PTTL', S)))
return count
