-- Tells how far the lanes of one shard reach: the ranks of deliveries in even steps among the first of each lane.
--
-- KEYS[1…4]  lanes    ZSET    delivery id, by rank
-- ARGV[1…4]  how many of each lane are asked about
-- ARGV[5…8]  the step in each lane
-- Answers for each lane a list: how many of those that were asked about there are, then their ranks in steps.

local answer = {}
for lane = 1, 4 do
  local wanted, step = tonumber(ARGV[lane]), tonumber(ARGV[lane + 4])
  local there = wanted > 0 and math.min(wanted, redis.call('ZCARD', KEYS[lane])) or 0
  local told = {there}
  for from = 0, there - 1, step do
    told[#told + 1] = redis.call('ZRANGE', KEYS[lane], from, from, 'WITHSCORES')[2]
  end
  answer[lane] = told
end
return answer
