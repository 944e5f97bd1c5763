-- Stores batches, each whole or not at all. Everything is checked before anything is written.
--
-- KEYS: the stream, the epoch's key.
-- ARGV: prefix, epoch, number of batches, then of each batch:
--   'c', topic, time to live of its end in ms, entry
--   'e', idempotency key or '', fingerprint, window in ms, time to live of own ids in ms,
--        topics (count, then each), own ids (count, then each), entries (count, then each)
--   where an entry is a count of strings, then field, value, field, value...
-- Answers the epoch there is, where it is another one; else a list with one of these for each batch:
--   {'s', id of its first entry}                        stored
--   {'r', id}                                           stored earlier
--   {'k'}                                               the key was used for something else
--   {'x', {closed topics}, {ids that are taken}}        refused; both counted from 1
local stream, prefix, at = KEYS[1], ARGV[1], 4
local epoch = redis.call('GET', KEYS[2])
if epoch ~= ARGV[2] then
  return epoch or ''
end

local function take()
  at = at + 1
  return ARGV[at - 1]
end

local function take_list()
  local count = tonumber(take())
  local list = {}
  for n = 1, count do
    list[n] = take()
  end
  return list
end

-- Which of the names have a key; asked in portions, as a call takes only so many arguments.
local function there(kind, names)
  local found = {}
  for from = 1, #names, 1000 do
    local keys = {}
    for n = from, math.min(from + 999, #names) do
      keys[#keys + 1] = prefix .. kind .. names[n]
    end
    if redis.call('EXISTS', unpack(keys)) > 0 then
      for n, key in ipairs(keys) do
        if redis.call('EXISTS', key) == 1 then
          found[#found + 1] = from + n - 1
        end
      end
    end
  end
  return found
end

-- Steps over so many entries; answers where they begin.
local function skip_entries(count)
  local from = at
  for _ = 1, count do
    at = at + 1 + tonumber(ARGV[at])
  end
  return from
end

-- The entries follow each other. Redis gives the first one its place. Taken from the arguments as they stand there, as
-- tables of their own would take most of the time.
local function store(from, count)
  local fields = tonumber(ARGV[from])
  local first = redis.call('XADD', stream, '*', unpack(ARGV, from + 1, from + fields))
  if count > 1 then
    local ms, seq = string.match(first, '(%d+%-)(%d+)')
    seq = tonumber(seq)
    for n = 1, count - 1 do
      from = from + 1 + fields
      fields = tonumber(ARGV[from])
      redis.call('XADD', stream, ms .. (seq + n), unpack(ARGV, from + 1, from + fields))
    end
  end
  return first
end

local answers = {}
for batch = 1, tonumber(ARGV[3]) do
  if take() == 'c' then
    local topic, ttl = take(), take()
    local entry = skip_entries(1)
    local key = prefix .. 'end:' .. topic
    local before = redis.call('GET', key)
    if before then
      answers[batch] = {'r', before}
    else
      local id = store(entry, 1)
      redis.call('SET', key, id, 'PX', ttl)
      answers[batch] = {'s', id}
    end
  else
    local key, fingerprint, window, ids_ttl = take(), take(), take(), take()
    local topics, ids = take_list(), take_list()
    local count = tonumber(take())
    local entries = skip_entries(count)
    local before = key ~= '' and redis.call('GET', prefix .. 'key:' .. key)
    if before then
      if string.sub(before, 1, #fingerprint) == fingerprint then
        answers[batch] = {'r', string.sub(before, #fingerprint + 1)}
      else
        answers[batch] = {'k'}
      end
    else
      local closed, taken = there('end:', topics), there('id:', ids)
      if #closed > 0 or #taken > 0 then
        answers[batch] = {'x', closed, taken}
      else
        local first = store(entries, count)
        for _, id in ipairs(ids) do
          redis.call('SET', prefix .. 'id:' .. id, first, 'PX', ids_ttl)
        end
        if key ~= '' then
          redis.call('SET', prefix .. 'key:' .. key, fingerprint .. first, 'PX', window)
        end
        answers[batch] = {'s', first}
      end
    end
  end
end
return answers
