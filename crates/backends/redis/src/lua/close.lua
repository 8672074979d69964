-- ARGV: scan, end of the tombstone's time, its time to live in milliseconds.
if call('HGET', S, 'state') == 'f' then
  -- What frees memory comes first: a script that began so may go on above the server's limit.
  call('UNLINK', S, P, C, O, A)
  call('ZREM', LEASE, SCAN)
  call('SET', T, ARGV[2], 'PX', ARGV[3])
end
return 'c'
