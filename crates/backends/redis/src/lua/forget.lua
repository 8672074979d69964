-- Takes a scan off its bucket's lists if it is not there any more: its time to live ended.
if call('EXISTS', S) == 0 then
  call('ZREM', DUE, SCAN)
  call('ZREM', LEASE, SCAN)
end
return 'g'
