-- ARGV: scan, now, end of the lease. Answers 'g' gone, 'h' held, '1' taken and complete, '0' taken and partial.
local now, lease = ARGV[2], ARGV[3]
local state, complete = unpack(call('HMGET', S, 'state', 'complete'))
-- Also takes off the list what ended by its time to live. What frees memory comes first, as in `close`.
call('ZREM', DUE, SCAN)
if not state then
  call('ZREM', LEASE, SCAN)
  return 'g'
end
if state == 'f' then
  local held = call('ZSCORE', LEASE, SCAN)
  if held and tonumber(now) < tonumber(held) then
    return 'h'
  end
else
  complete = '0'
  call('HSET', S, 'state', 'f', 'complete', complete)
  call('DEL', C)
end
enlist(LEASE, lease, touch())
return complete
