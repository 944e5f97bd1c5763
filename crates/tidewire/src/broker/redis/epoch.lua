-- Answers the history's epoch. Sets it where there is none, or where it is still the one that is known to be over.
--
-- KEYS: the epoch's key. ARGV: the epoch that is over or '', a new one.
local epoch = redis.call('GET', KEYS[1])
if epoch == false or epoch == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return ARGV[2]
end
return epoch
