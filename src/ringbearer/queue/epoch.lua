-- Tells whether this server holds a whole index of one shard, or writes down that it does.
--
-- KEYS[1]  epoch    STRING  run id of the server on which the index was built whole
-- ARGV[1]  "look" or "mark"
-- ARGV[2]  seconds after which an index that nobody touches is forgotten
-- Answers 1 or 0.

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if ARGV[1] == 'mark' then
  redis.call('SET', KEYS[1], run_id)
end
local whole = redis.call('GET', KEYS[1]) == run_id
if whole then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return whole and 1 or 0
