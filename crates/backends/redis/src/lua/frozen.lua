-- ARGV: scan, most outcomes in one answer. Nothing unless the scan is frozen; else whether it is complete, the head,
-- payloads, and, if they are few enough, the outcomes in the order of the settled payloads.
local state, complete = unpack(call('HMGET', S, 'state', 'complete'))
if state ~= 'f' then
  return false
end
local payloads, settled = call('HGETALL', P), {}
for i = 1, #payloads, 2 do
  if payloads[i + 1] == '+' then
    settled[#settled + 1] = payloads[i]
  end
end
local outcomes = false
if #settled == 0 then
  outcomes = {}
elseif #settled <= tonumber(ARGV[2]) then
  outcomes = call('HMGET', O, unpack(settled))
end
return {complete, call('HGET', O, 'head'), payloads, outcomes}
