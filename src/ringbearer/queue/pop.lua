-- Takes the first deliveries of each lane out of one shard.
--
-- KEYS[1]    bodies   HASH    delivery id ▸ sealed body of its event
-- KEYS[2…5]  lanes    ZSET    delivery id, by rank
-- KEYS[6]    epoch    STRING  run id of the server on which the index was built whole
-- ARGV[1…4]  how many of each lane
-- ARGV[5]    1 if what one lane leaves goes to the others, the most important first; else 0
-- Answers false when this server does not hold a whole index: it started empty, from an old copy, or was a replica;
-- else a flat list: how many of each lane, then delivery id, body (false without one), delivery id, body …

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('GET', KEYS[6]) ~= run_id then
  return false
end

local ids = {}
local answer = {0, 0, 0, 0}
local function take(lane, count)
  if count <= 0 then return 0 end
  local popped = redis.call('ZPOPMIN', KEYS[lane + 1], count)
  for i = 1, #popped, 2 do
    ids[#ids + 1] = popped[i]
  end
  answer[lane] = answer[lane] + #popped / 2
  return #popped / 2
end

local spare = 0
for lane = 1, 4 do
  local wanted = tonumber(ARGV[lane])
  spare = spare + wanted - take(lane, wanted)
end
if ARGV[5] == '1' then
  for lane = 1, 4 do
    spare = spare - take(lane, spare)
  end
end

local step = 4000 -- unpack has a limit, at about 8,000
for from = 1, #ids, step do
  local upto = math.min(from + step - 1, #ids)
  local bodies = redis.call('HMGET', KEYS[1], unpack(ids, from, upto))
  redis.call('HDEL', KEYS[1], unpack(ids, from, upto))
  for i = from, upto do
    answer[2 * i + 3] = ids[i]
    answer[2 * i + 4] = bodies[i - from + 1]
  end
end
return answer
