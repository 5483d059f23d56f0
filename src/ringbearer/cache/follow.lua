-- Learns that the store is at a version, and drops what changed on the way there; all or nothing.
--
-- KEYS[1]   the mark of this shard: generation (16 hexadecimal digits), version (16 decimal digits).
--           It vouches for every entry of its generation: each change up to that version is in it.
-- KEYS[2..] entries of the suppliers that changed after ARGV[1]
-- ARGV      1 the version from which on the changes are given   2 the version to reach
--           3 a generation that nobody has used                 4 "1": begin a new generation
-- Returns the version that the mark vouches for then. Below ARGV[1] nothing was done: give the changes since then.

local mark = redis.call('GET', KEYS[1])
if not mark or ARGV[4] == '1' then
    -- Whatever lies here has nobody who vouches for it: with another generation it is not read, and expires.
    redis.call('SET', KEYS[1], ARGV[3] .. string.format('%016d', ARGV[2]))
    return tonumber(ARGV[2])
end
local at = tonumber(string.sub(mark, 17, 32))
if at >= tonumber(ARGV[2]) or at < tonumber(ARGV[1]) then
    return at
end
for i = 2, #KEYS do
    local head = redis.call('GETRANGE', KEYS[i], 0, 31)
    if #head == 32 and tonumber(string.sub(head, 17, 32)) < tonumber(ARGV[2]) then
        redis.call('DEL', KEYS[i])
    end
end
redis.call('SET', KEYS[1], string.sub(mark, 1, 16) .. string.format('%016d', ARGV[2]))
return tonumber(ARGV[2])
