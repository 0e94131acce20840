-- `http-request lua.wait_for_server BACKEND SECONDS`: a request waits until the backend has a server that is up.
--
-- In an old worker no server comes up any more. There it waits until the worker passes its requests on to the newest one.

local SHORTEST_MS, LONGEST_MS = 20, 250

-- HAProxy gives a boolean as 0 or 1, from version 3.2 on perhaps as false or true.
local function is_true(value)
    return value == 1 or value == true
end

local function has_successor(txn)
    return is_true(txn.f:stopping()) and is_true(txn.c:in_table("newest", "successor"))
end

core.register_action("wait_for_server", { "http-req" }, function(txn, backend, limit_s)
    local left_ms, pause_ms = tonumber(limit_s) * 1000, SHORTEST_MS
    while left_ms > 0 and txn.f:nbsrv(backend) == 0 and not has_successor(txn) do
        core.msleep(pause_ms)
        left_ms = left_ms - pause_ms
        pause_ms = math.min(2 * pause_ms, LONGEST_MS)
    end
end, 2)
