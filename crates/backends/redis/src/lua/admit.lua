-- ARGV: scan, now, parent, children (id, size as a double; each), description of the scan or nothing.
-- Answers with the state, and if that is 'o' with one letter for each child: 'n' new, 'm' outstanding, admitted by this
-- parent, 'k' outstanding, 's' settled, refused by the budget of 'p' payloads, 'b' bytes, 'x' expansion.
local now, parent, children = ARGV[2], ARGV[3], ARGV[4]
local SIZE = 8
local state = find(now, 5)
if state ~= 'o' then
  return state
end
touch()
local out = take_in(parent, '-')
local ids, sizes = {}, {}
for first = 1, #children, ID + SIZE do
  ids[#ids + 1] = string.sub(children, first, first + ID - 1)
  sizes[#sizes + 1] = struct.unpack('<d', children, first + ID)
end
local answer, fresh, new, set = {'o'}, {}, {}, {}
if #ids > 0 then
  local known = call('HMGET', P, unpack(ids))
  local numbers = call('HMGET', S, 'n', 'bytes', 'max_n', 'max_bytes', 'max_expanded', 'time')
  for i = 1, #numbers do
    numbers[i] = tonumber(numbers[i])
  end
  local n, bytes, max_n, max_bytes, max_expanded, time = unpack(numbers, 1, 6)
  local before = bytes
  for i, id in ipairs(ids) do
    local is = fresh[id] and parent or known[i]
    local letter
    if is == '+' then
      letter = 's'
    elseif is then
      letter = is == parent and 'm' or 'k'
    elseif n + 1 > max_n then
      letter = 'p'
    elseif bytes + sizes[i] > max_bytes then
      letter = 'b'
    elseif bytes + sizes[i] > max_expanded then
      letter = 'x'
    else
      letter = 'n'
      n, bytes, fresh[id] = n + 1, bytes + sizes[i], true
      new[#new + 1] = id
      set[#set + 1], set[#set + 2] = id, parent
    end
    answer[#answer + 1] = letter
  end
  if #new > 0 then
    call('HSET', P, unpack(set))
    call('HINCRBY', S, 'n', #new)
    call('HINCRBY', S, 'bytes', bytes - before)
    note_children(parent, new)
    -- A scan that grows has its time once more; one that an older version opened has no time noted.
    if time then
      call('ZADD', DUE, 'XX', 'GT', after(now, time), SCAN)
    end
    out = out + #new
  end
end
if out > 0 then
  call('HINCRBY', S, 'out', out)
end
return table.concat(answer)
