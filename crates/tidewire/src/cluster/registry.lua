-- The registry's changes, each carried out whole. ARGV[1] says which.
--
-- KEYS[1]: a key of the slot. ARGV[2]: prefix, ARGV[3]: time to live in ms.
-- Keys, after the prefix:
--   route:{client}   'node connection', for each client
--   clients:{node}   the set of a node's clients
--   nodes            the nodes, by when they are over, in ms
--   node:{node}      what a node says of itself
local op, prefix, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local nodes = prefix .. 'nodes'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function alive(node)
  local over = redis.call('ZSCORE', nodes, node)
  return over and tonumber(over) > now
end

local function split(route)
  return string.match(route, '^(%S+) (%S+)$')
end

-- The route of a client, if its node is alive.
local function live(client)
  local route = redis.call('GET', prefix .. 'route:' .. client)
  if not route then
    return nil
  end
  local node = split(route)
  return alive(node) and route or nil
end

local function put(client, node, connection)
  redis.call('SET', prefix .. 'route:' .. client, node .. ' ' .. connection, 'PX', ttl)
  redis.call('SADD', prefix .. 'clients:' .. node, client)
end

local function drop(client, node)
  redis.call('SREM', prefix .. 'clients:' .. node, client)
end

if op == 'register' then
  local client, node, connection = ARGV[4], ARGV[5], ARGV[6]
  local before = redis.call('GET', prefix .. 'route:' .. client)
  local answer = live(client) or ''
  if before then
    local old = split(before)
    if old ~= node then
      drop(client, old)
    end
  end
  put(client, node, connection)
  redis.call('PEXPIRE', prefix .. 'clients:' .. node, ttl)
  return answer
elseif op == 'unregister' then
  local node = ARGV[4]
  for at = 5, #ARGV, 2 do
    local client, connection = ARGV[at], ARGV[at + 1]
    if redis.call('GET', prefix .. 'route:' .. client) == node .. ' ' .. connection then
      redis.call('DEL', prefix .. 'route:' .. client)
      drop(client, node)
    end
  end
  return 0
elseif op == 'renew' then
  local node, lost = ARGV[4], {}
  for at = 5, #ARGV, 2 do
    local client, connection = ARGV[at], ARGV[at + 1]
    local route = redis.call('GET', prefix .. 'route:' .. client)
    if route == node .. ' ' .. connection then
      redis.call('PEXPIRE', prefix .. 'route:' .. client, ttl)
      redis.call('SADD', prefix .. 'clients:' .. node, client)
    else
      local other = route and live(client)
      local _, newer = split(other or '')
      if newer and newer > connection then
        lost[#lost + 1] = client
        lost[#lost + 1] = other
        drop(client, node)
      else
        if route then
          local old = split(route)
          drop(client, old)
        end
        put(client, node, connection)
      end
    end
  end
  redis.call('PEXPIRE', prefix .. 'clients:' .. node, ttl)
  return lost
elseif op == 'find' then
  return live(ARGV[4]) or ''
elseif op == 'count' then
  local count = 0
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', nodes, '(' .. now, '+inf')) do
    count = count + redis.call('SCARD', prefix .. 'clients:' .. node)
  end
  return count
elseif op == 'beat' then
  local node, info = ARGV[4], ARGV[5]
  redis.call('ZADD', nodes, now + ttl, node)
  redis.call('PEXPIRE', nodes, ttl * 2)
  redis.call('SET', prefix .. 'node:' .. node, info, 'PX', ttl)
  redis.call('PEXPIRE', prefix .. 'clients:' .. node, ttl)
  return 0
elseif op == 'nodes' then
  local found = {}
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', nodes, '(' .. now, '+inf')) do
    found[#found + 1] = redis.call('GET', prefix .. 'node:' .. node) or ''
  end
  return found
elseif op == 'sweep' or op == 'leave' then
  -- Up to a thousand entries at a time, so that nobody waits for long.
  local dead = op == 'leave' and {ARGV[4]} or redis.call('ZRANGEBYSCORE', nodes, '-inf', now)
  local swept = 0
  for _, node in ipairs(dead) do
    local key = prefix .. 'clients:' .. node
    local clients = redis.call('SPOP', key, 1000 - swept)
    for _, client in ipairs(clients) do
      local route = redis.call('GET', prefix .. 'route:' .. client)
      if route and split(route) == node then
        redis.call('DEL', prefix .. 'route:' .. client)
      end
    end
    swept = swept + #clients
    if redis.call('EXISTS', key) == 0 then
      redis.call('ZREM', nodes, node)
      redis.call('DEL', prefix .. 'node:' .. node)
    end
    if swept >= 1000 then
      break
    end
  end
  return swept
elseif op == 'forget' then
  local node = ARGV[4]
  for at = 5, #ARGV do
    local client = ARGV[at]
    drop(client, node)
    local route = redis.call('GET', prefix .. 'route:' .. client)
    if route and split(route) == node then
      redis.call('DEL', prefix .. 'route:' .. client)
    end
  end
  return 0
end
return redis.error_reply('unknown operation')
