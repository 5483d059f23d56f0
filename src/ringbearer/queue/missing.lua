-- Tells which deliveries are not in one shard's index.
--
-- KEYS[1…4]  lanes    ZSET    delivery id, by rank
-- ARGV[1]    MessagePack: for each lane a list of delivery ids
-- Answers the ids that are missing.

local lanes = cmsgpack.unpack(ARGV[1])
local missing = {}
local step = 4000 -- unpack has a limit, at about 8,000
for lane = 1, 4 do
  local ids = lanes[lane]
  for from = 1, #ids, step do
    local upto = math.min(from + step - 1, #ids)
    local ranks = redis.call('ZMSCORE', KEYS[lane], unpack(ids, from, upto))
    for i = from, upto do
      if not ranks[i - from + 1] then
        missing[#missing + 1] = ids[i]
      end
    end
  end
end
return missing
