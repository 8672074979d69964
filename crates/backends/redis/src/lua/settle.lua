-- ARGV: scan, now, payload, outcome, children that the caller was told are admitted, end of the lease if the scan is
-- frozen by this, '1' if memory above the server's limit may be used, description of the scan or nothing.
-- Answers with the state, and if that is 'o' with the ids of the payload's children that are outstanding; 'r' if the
-- caller has to say first where the outcome is (it did not know the scan).
local now, payload, outcome, children, lease, over_limit = unpack(ARGV, 2, 7)
if over_limit == '1' then
  -- A script whose first write frees memory may go on above the limit.
  call('ZREM', LEASE, '')
end
local state = find(now, 8)
if state ~= 'o' then
  return state
end
if outcome == '' then
  return 'r'
end
local ttl = touch()
local out = 0
local was = call('HGET', P, payload)
if was ~= '+' then
  call('HSET', O, payload, outcome)
  call('HSET', P, payload, '+')
  out = was and -1 or 0
end
-- The caller was told that these are admitted. One that is not known now was lost with the server's last operations;
-- it has to come back before the payload counts as done, or the scan could end without it.
each_chunk(children, function(ids)
  local lost, set = {}, {}
  for i, is in ipairs(call('HMGET', P, unpack(ids))) do
    if not is then
      lost[#lost + 1] = ids[i]
      set[#set + 1], set[#set + 2] = ids[i], payload
    end
  end
  if #lost > 0 then
    out = out + call('HSET', P, unpack(set))
    note_children(payload, lost)
  end
end)
if call('HINCRBY', S, 'out', out) == 0 then
  call('HSET', S, 'state', 'f', 'complete', '1')
  call('ZREM', DUE, SCAN)
  enlist(LEASE, lease, ttl)
  call('DEL', C)
  return 'f'
end
local unsettled = {'o'}
for n = 1, tonumber(call('HGET', C, payload) or 0) do
  each_chunk(call('HGET', C, payload .. ':' .. n), function(ids)
    for i, is in ipairs(call('HMGET', P, unpack(ids))) do
      if is ~= '+' then
        unsettled[#unsettled + 1] = ids[i]
      end
    end
  end)
end
return table.concat(unsettled)
