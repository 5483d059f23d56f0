-- Takes the first deliveries of each lane out of one shard.
--
-- KEYS[1]    bodies   HASH    delivery id ▸ sealed body of its event
-- KEYS[2…5]  lanes    ZSET    delivery id, by rank
-- KEYS[6]    epoch    STRING  run id of the server on which the index was built whole
-- ARGV[1…4]  how many of each lane
-- ARGV[5]    1 if what one lane leaves goes to the others, the most important first; else 0
-- Answers false when this server does not hold a whole index: it started empty, from an old copy, or was a replica;
-- else how many of each lane, then lists of delivery ids, each followed by the list of their bodies (false without one).

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('GET', KEYS[6]) ~= run_id then
  return false
end

local counts = {0, 0, 0, 0}
local taken = {}
local step = 4000 -- unpack has a limit, at about 8,000

-- ZPOPMIN would write out each rank, which nobody asks for here.
local function take(lane, count)
  local left = count
  while left > 0 do
    local most = math.min(left, step)
    local ids = redis.call('ZRANGE', KEYS[lane + 1], 0, most - 1)
    if #ids > 0 then
      redis.call('ZREMRANGEBYRANK', KEYS[lane + 1], 0, most - 1)
      taken[#taken + 1] = ids
      left = left - #ids
    end
    if #ids < most then
      break
    end
  end
  counts[lane] = counts[lane] + count - left
  return count - left
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

local answer = counts
for _, ids in ipairs(taken) do
  answer[#answer + 1] = ids
  answer[#answer + 1] = redis.call('HMGET', KEYS[1], unpack(ids))
  redis.call('HDEL', KEYS[1], unpack(ids))
end
return answer
