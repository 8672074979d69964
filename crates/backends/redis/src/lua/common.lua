-- In front of every script that works on one scan. All keys have one hash tag, so that they lie on one node:
--   S  the scan: state, times, counters, budgets (small values only, so that it stays one compact block)
--   P  payloads: id -> '+' settled, '-' outstanding, or the 16 bytes of the parent that admitted it (outstanding)
--   C  children: parent -> number of chunks, parent:n -> ids that the parent admitted
--   O  outcomes: id -> outcome, and 'head'
--   A  attempts: id -> count
--   T  the tombstone: until when
--   DUE, LEASE  of the bucket: open scans by the end of their time, frozen ones by the end of their lease
-- Times are microseconds of the caller's clock; ids are 16 bytes; ARGV[1] is the scan.
local S, P, C, O, A, T, DUE, LEASE = unpack(KEYS)
local SCAN = ARGV[1]
local ID = 16
-- Ids that one command is given at most; unpack() cannot take many more than that.
local CHUNK = 500

local function call(...)
  return redis.call(...)
end

-- Gives a key `ttl` milliseconds to live from now on.
local function live(key, ttl)
  call('PEXPIRE', key, ttl)
end

-- A bucket's set lives as long as the longest of its scans.
local function outlive(set, ttl)
  if call('PTTL', set) < ttl then
    live(set, ttl)
  end
end

-- Keeps what belongs to a scan that is still worked on from ending in the midst of it, all of it at the same time.
local function touch()
  local ttl = tonumber(call('HGET', S, 'ttl'))
  if call('PTTL', S) * 2 < ttl then
    for _, key in ipairs({S, P, C, O, A}) do
      live(key, ttl)
    end
    outlive(DUE, ttl)
    outlive(LEASE, ttl)
  end
  return ttl
end

-- The end of a scan's `time` from `now` on, both microseconds. As text it keeps all its digits.
local function after(now, time)
  return string.format('%.0f', tonumber(now) + tonumber(time))
end

local function enlist(set, score, ttl)
  call('ZADD', set, score, SCAN)
  outlive(set, ttl)
end

-- 1 if the payload was not known and is outstanding now.
local function take_in(payload, as)
  return call('HSETNX', P, payload, as)
end

-- The scan begins: `at` is where its description starts in ARGV.
local function open(now, at)
  local head, time, ttl, max_n, max_bytes, max_expanded, day, roots = unpack(ARGV, at)
  local out = 0
  call('HSET', O, 'head', head)
  for first = 1, #roots, ID do
    out = out + take_in(string.sub(roots, first, first + ID - 1), '-')
  end
  call('HSET', S, 'state', 'o', 'started', now, 'time', time, 'ttl', ttl, 'out', out, 'n', 0, 'bytes', 0, 'max_n', max_n,
    'max_bytes', max_bytes, 'max_expanded', max_expanded, 'day', day)
  call('DEL', T)
  for _, key in ipairs({S, P, O, A}) do
    live(key, ttl)
  end
  enlist(DUE, after(now, time), tonumber(ttl))
end

-- 'o' open, 'f' frozen, 'c' closed, 'u' unknown; opens the scan if there is a description from ARGV[at] on.
local function find(now, at)
  local state = call('HGET', S, 'state')
  if state then
    return state
  end
  local over = call('GET', T)
  if over and tonumber(now) < tonumber(over) then
    return 'c'
  end
  if at and #ARGV >= at then
    open(now, at)
    return 'o'
  end
  return 'u'
end

-- Calls `each` with lists of at most CHUNK ids out of a string of ids.
local function each_chunk(ids, each)
  local chunk = {}
  for first = 1, #ids, ID do
    chunk[#chunk + 1] = string.sub(ids, first, first + ID - 1)
    if #chunk == CHUNK then
      each(chunk)
      chunk = {}
    end
  end
  if #chunk > 0 then
    each(chunk)
  end
end

-- Notes that `parent` admitted `ids`, a list of at most CHUNK.
local function note_children(parent, ids)
  local n = call('HINCRBY', C, parent, 1)
  call('HSET', C, parent .. ':' .. n, table.concat(ids))
  if n == 1 then
    live(C, call('PTTL', S))
  end
end
