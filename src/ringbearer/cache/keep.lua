-- Keeps entries, each unless it is staler than what is vouched for, or than what is there: compare and set.
--
-- KEYS[1]   the mark of this shard, as in follow.lua
-- KEYS[2..] entries: generation (16 hexadecimal digits), version (16 decimal digits), sealed value
-- ARGV      1.. for each entry its version and sealed value, and how many milliseconds it may live
-- Returns how many were kept; -1 when there is no mark, so that nobody vouches for anything.

local mark = redis.call('GET', KEYS[1])
if not mark then
    return -1
end
local generation, at = string.sub(mark, 1, 16), tonumber(string.sub(mark, 17, 32))
local kept = 0
for i = 2, #KEYS do
    local value = ARGV[2 * i - 3]
    local version = tonumber(string.sub(value, 1, 16))
    local head = redis.call('GETRANGE', KEYS[i], 0, 31)
    local newer = string.sub(head, 1, 16) == generation and tonumber(string.sub(head, 17, 32)) > version
    if version >= at and not newer then
        redis.call('SET', KEYS[i], generation .. value, 'PX', ARGV[2 * i - 2])
        kept = kept + 1
    end
end
return kept
