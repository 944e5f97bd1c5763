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

-- The entries follow each other. Redis gives the first one its place.
local function store(entries)
  local first = redis.call('XADD', stream, '*', unpack(entries[1]))
  local ms, seq = string.match(first, '(%d+)%-(%d+)')
  for n = 2, #entries do
    redis.call('XADD', stream, ms .. '-' .. string.format('%.0f', tonumber(seq) + n - 1), unpack(entries[n]))
  end
  return first
end

local answers = {}
for batch = 1, tonumber(ARGV[3]) do
  if take() == 'c' then
    local topic, ttl, entry = take(), take(), take_list()
    local key = prefix .. 'end:' .. topic
    local before = redis.call('GET', key)
    if before then
      answers[batch] = {'r', before}
    else
      local id = store({entry})
      redis.call('SET', key, id, 'PX', ttl)
      answers[batch] = {'s', id}
    end
  else
    local key, fingerprint, window, ids_ttl = take(), take(), take(), take()
    local topics, ids = take_list(), take_list()
    local entries = {}
    for n = 1, tonumber(take()) do
      entries[n] = take_list()
    end
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
        local first = store(entries)
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
