-- Uses every command that the scripts use once, on keys that nothing else uses, so that a missing permission shows before
-- an operation stops half-way. Leaves nothing.
local S, P, C, O, A, T, DUE, LEASE = unpack(KEYS)
local call = redis.call
call('HSET', S, 'a', '1')
call('HSETNX', P, 'a', '1')
call('HINCRBY', C, 'a', 1)
call('HGET', S, 'a')
call('HMGET', S, 'a', 'b')
call('HGETALL', O)
call('EXISTS', O)
call('HINCRBY', A, 'a', 1)
call('SET', T, '1', 'PX', 1000)
call('GET', T)
call('PEXPIRE', S, 1000)
call('PTTL', S)
call('ZADD', DUE, 1, 'a')
call('ZADD', LEASE, 1, 'a')
call('ZSCORE', DUE, 'a')
call('ZREM', DUE, 'a')
call('DEL', T)
call('UNLINK', S, P, C, O, A, T, DUE, LEASE)
return 1
