-- Stores batches, each whole or not at all. Everything is checked before anything is written.
--
-- KEYS: the stream, the epoch's key.
-- ARGV: prefix, epoch, number of batches, then of each batch:
--   'c', topic, time to live of its end in ms, entry
--   'e', idempotency key or '', fingerprint, window in ms, time to live of own ids in ms,
--        topics (count, then each), own ids (count, then each), the first event's entry,
--        number of entries with the other events, each: number of its last event in the batch, bytes
--   where an entry is a count of strings, then field, value, field, value...
-- Answers the epoch there is, where it is another one; else a list with one of these for each batch:
--   {'s', id of its first entry}                        stored
--   {'r', id}                                           stored earlier
--   {'k'}                                               the key was used for something else
--   {'x', {closed topics}, {ids that are taken}}        refused; both counted from 1
--   {'f'}                                               refused: no ids are left for so many
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

-- An entry is added from the arguments as they stand, as tables of their own would take most of the time.
local function take_entry()
  local fields = tonumber(take())
  local from = at
  at = at + fields
  return from, at - 1
end

-- Numbers are exact up to 2^53. An id beyond that was somebody else's.
local SEQ_MAX = 2 ^ 53

local has_stored = false

-- Redis gives the first event its place; the others follow it. False where that can't be.
local function store(from, to, packs, count)
  local first = redis.call('XADD', stream, '*', unpack(ARGV, from, to))
  has_stored = true
  if count > 0 then
    local ms, seq = string.match(first, '(%d+%-)(%d+)')
    seq = tonumber(seq)
    if seq >= SEQ_MAX then
      redis.call('XDEL', stream, first)
      return false
    end
    for n = packs, packs + 2 * (count - 1), 2 do
      local id = string.format('%s%.0f', ms, seq + ARGV[n])
      redis.call('XADD', stream, id, 'events', ARGV[n + 1])
    end
  end
  return first
end

local answers = {}

local function store_all()
  for batch = 1, tonumber(ARGV[3]) do
    if take() == 'c' then
      local topic, ttl = take(), take()
      local from, to = take_entry()
      local key = prefix .. 'end:' .. topic
      local before = redis.call('GET', key)
      if before then
        answers[batch] = {'r', before}
      else
        local id = store(from, to, 0, 0)
        redis.call('SET', key, id, 'PX', ttl)
        answers[batch] = {'s', id}
      end
    else
      local key, fingerprint, window, ids_ttl = take(), take(), take(), take()
      local topics, ids = take_list(), take_list()
      local from, to = take_entry()
      local count = tonumber(take())
      local packs = at
      at = at + 2 * count
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
          local first = store(from, to, packs, count)
          if first then
            for _, id in ipairs(ids) do
              redis.call('SET', prefix .. 'id:' .. id, first, 'PX', ids_ttl)
            end
            if key ~= '' then
              redis.call('SET', prefix .. 'key:' .. key, fingerprint .. first, 'PX', window)
            end
            answers[batch] = {'s', first}
          else
            answers[batch] = {'f'}
          end
        end
      end
    end
  end
end

-- A script that fails takes nothing back: an error says that nothing is stored only where that is so.
local ok, problem = pcall(store_all)
if ok then
  return answers
elseif has_stored then
  return redis.error_reply('PARTLY stored, then Redis refused to go on')
elseif type(problem) == 'table' then
  return problem
end
return redis.error_reply(problem)
