-- Appends calls to the lines of endpoints, judges each line after each call, and tells which circuits are to open.
--
-- KEYS[1]  calls  HASH  hashed endpoint id ▸ its line of calls, a colon, its sealed id
-- ARGV[1]  MessagePack: length of a line, window, calls to judge from, ratio of failures, connect errors in a row
-- ARGV[2]  seconds after which lines that nobody touches are forgotten
-- ARGV[3]  how many lines there may be; what comes above that is left out
-- ARGV[4…] for each endpoint its hashed id, its sealed id and its new calls: 0 answered, 1 failed, 2 not connected
-- Answers a flat list: for each circuit to open the hashed id and the line.

local length, window, from, ratio, errors = unpack(cmsgpack.unpack(ARGV[1]))
local most = tonumber(ARGV[3])

local function opens(line)
  local in_a_row = #string.match(line, '2*$')
  if in_a_row >= errors then return true end
  local latest = string.sub(line, -window)
  local _, answered = string.gsub(latest, '0', '')
  local failed = #latest - answered
  return string.sub(line, -1) ~= '0' and #latest >= from and failed >= ratio * #latest
end

local found = {}
local known = redis.call('HLEN', KEYS[1])
for at = 4, #ARGV, 3 do
  local name, sealed, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local there = redis.call('HGET', KEYS[1], name)
  local line = there and string.match(there, '^%d*') or ''
  for i = 1, #new do
    line = string.sub(line .. string.sub(new, i, i), -length)
    if opens(line) then
      found[#found + 1] = name
      found[#found + 1] = line
      line = ''
      break
    end
  end
  if not string.find(line, '[12]') then
    if there then known = known - redis.call('HDEL', KEYS[1], name) end
  elseif there or known < most then
    known = known + redis.call('HSET', KEYS[1], name, line .. ':' .. sealed)
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return found
