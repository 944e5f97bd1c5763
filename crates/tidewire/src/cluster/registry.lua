-- The registry's changes, each carried out whole. ARGV[1] says which.
--
-- KEYS[1]: a key of the slot. ARGV[2]: prefix, ARGV[3]: time to live in ms.
-- Keys, after the prefix:
--   route:{client}   'node connection rank', for each client. The rank is the greatest connection that ever had the
--                    place: whoever is not beyond it was taken over, whatever the clocks of the nodes say
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

-- The node, the connection and the rank of a route; nothing if it is none.
local function split(route)
  if not route then
    return nil
  end
  local node, connection, rank = string.match(route, '^(%S+) (%S+) (%S+)$')
  return node, connection, rank
end

-- The route of a client, if it is one; whatever else has its key is nobody's.
local function get(client)
  local route = redis.pcall('GET', prefix .. 'route:' .. client)
  return split(type(route) == 'string' and route) and route or nil
end

-- The route of a client, if its node is alive.
local function live(client)
  local route = get(client)
  return route and alive((split(route))) and route or nil
end

local function put(client, node, connection, rank)
  rank = rank and rank > connection and rank or connection
  local route = node .. ' ' .. connection .. ' ' .. rank
  redis.call('SET', prefix .. 'route:' .. client, route, 'PX', ttl)
  redis.call('SADD', prefix .. 'clients:' .. node, client)
end

local function drop(client, node)
  redis.call('SREM', prefix .. 'clients:' .. node, client)
end

if op == 'register' then
  local client, node, connection = ARGV[4], ARGV[5], ARGV[6]
  local answer = live(client) or ''
  local old, _, rank = split(get(client))
  if old and old ~= node then
    drop(client, old)
  end
  put(client, node, connection, rank)
  redis.call('PEXPIRE', prefix .. 'clients:' .. node, ttl)
  return answer
elseif op == 'unregister' then
  local node = ARGV[4]
  for at = 5, #ARGV, 2 do
    local client, connection = ARGV[at], ARGV[at + 1]
    local owner, theirs = split(get(client))
    if owner == node and theirs == connection then
      redis.call('DEL', prefix .. 'route:' .. client)
      drop(client, node)
    end
  end
  return 0
elseif op == 'renew' then
  -- First how many were not there, then who is elsewhere.
  local node, restored, lost = ARGV[4], 0, {''}
  for at = 5, #ARGV, 2 do
    local client, connection = ARGV[at], ARGV[at + 1]
    local owner, theirs, rank = split(get(client))
    if owner == node and theirs == connection then
      redis.call('PEXPIRE', prefix .. 'route:' .. client, ttl)
      redis.call('SADD', prefix .. 'clients:' .. node, client)
    elseif owner and rank >= connection and alive(owner) then
      -- It was taken over: the rank is that of the newest one of all that had the place.
      lost[#lost + 1] = client
      lost[#lost + 1] = live(client)
      if owner ~= node then
        drop(client, node)
      end
    else
      if owner and owner ~= node then
        drop(client, owner)
      end
      put(client, node, connection, rank)
      restored = restored + 1
    end
  end
  redis.call('PEXPIRE', prefix .. 'clients:' .. node, ttl)
  lost[1] = tostring(restored)
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
  local former = alive(node) and redis.call('GET', prefix .. 'node:' .. node) or ''
  redis.call('ZADD', nodes, now + ttl, node)
  redis.call('PEXPIRE', nodes, ttl * 2)
  redis.call('SET', prefix .. 'node:' .. node, info, 'PX', ttl)
  redis.call('PEXPIRE', prefix .. 'clients:' .. node, ttl)
  return former
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
      if split(get(client)) == node then
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
    if split(get(client)) == node then
      redis.call('DEL', prefix .. 'route:' .. client)
    end
  end
  return 0
end
return redis.error_reply('unknown operation')
