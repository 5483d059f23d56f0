-- Puts deliveries of one shard into the index. What is there already gets its new rank.
--
-- KEYS[1]  bodies   HASH    delivery id ▸ sealed body of its event
-- KEYS[2]  lane 0   ZSET    delivery id, by rank
-- KEYS[3]  lane 1   ZSET
-- KEYS[4]  lane 2   ZSET
-- KEYS[5]  lane 3   ZSET
-- ARGV[1]  how many deliveries a lane may hold; what comes above that is left out
-- ARGV[2]  seconds after which an index that nobody touches is forgotten
-- ARGV[3]  MessagePack: for each lane a flat list of rank, delivery id, rank, delivery id …; ranks in words, since
--          what is a number here is written out again for each command
-- ARGV[4…] delivery id, sealed body, delivery id, sealed body … of those that have a body, all of one lane after
--          another as in ARGV[3]
-- Answers how many were left out.

local lanes = cmsgpack.unpack(ARGV[3])
local most = tonumber(ARGV[1])
local left_out = 0
local step = 4000 -- unpack has a limit, at about 8,000

for lane = 1, 4 do
  local pairs_of_lane = lanes[lane]
  if #pairs_of_lane > 0 then
    if redis.call('ZCARD', KEYS[lane + 1]) >= most then
      left_out = left_out + #pairs_of_lane / 2
    else
      for from = 1, #pairs_of_lane, step do
        redis.call('ZADD', KEYS[lane + 1], unpack(pairs_of_lane, from, math.min(from + step - 1, #pairs_of_lane)))
      end
      redis.call('EXPIRE', KEYS[lane + 1], ARGV[2])
    end
  end
end

if left_out == 0 and #ARGV > 3 then
  for from = 4, #ARGV, step do
    redis.call('HSET', KEYS[1], unpack(ARGV, from, math.min(from + step - 1, #ARGV)))
  end
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return left_out
