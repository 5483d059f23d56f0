-- Single events as fast as they are answered, over the suppliers in turn; run by wrk.
-- Arguments: the admin key, the number of suppliers.
local key, suppliers, n = "", 1, 0
local padding = string.rep("x", 300)

function init(args)
  key, suppliers = args[1], tonumber(args[2])
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. key
end

function request()
  n = n + 1
  return wrk.format("POST", "/v1/events", nil,
    '{"supplier_id":"b' .. (n % suppliers) .. '","type":"booking.confirmed","data":{"n":' .. n ..
    ',"text":"' .. padding .. '"}}')
end

function done(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout
  io.write(string.format('RESULT {"requests":%d,"seconds":%.6f,"bad":%d,"p50":%.6f,"p95":%.6f,"p99":%.6f}\n',
    summary.requests, summary.duration / 1e6, bad,
    latency:percentile(50) / 1e6, latency:percentile(95) / 1e6, latency:percentile(99) / 1e6))
end
