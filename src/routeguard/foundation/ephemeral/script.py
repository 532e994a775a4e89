"""The script that spends quotas inside Valkey, in a single atomic command.

Times are the server's own (`TIME`), so the clocks of applications do not matter (attack RL-08). Should the server's
clock go back, the next attempt, allowed or not, dates the counter to the present; should it jump forward, it is fresh.
"""

from __future__ import annotations

import hashlib
from typing import Final

SCRIPT: Final = """
local arg = 1
local out = {}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local allowed = true
local writes = {}
for i = 1, #KEYS do
  local kind, limit, step, cost = ARGV[arg], tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  arg = arg + 4
  local raw = redis.call('GET', KEYS[i])
  local state = raw and cmsgpack.unpack(raw)
  if kind == 'g' then
    local level = 0
    if state then
      level = math.max(0, state[1] - math.max(0, now - state[2]) / step)
      if state[2] > now then
        redis.call('SET', KEYS[i], cmsgpack.pack({level, now}), 'PX', math.ceil(level * step / 1000) + 1)
      end
    end
    local after = math.max(0, level + cost)
    if after > limit + 0.000001 then
      allowed = false
      out[i] = {0, math.max(0, math.floor(limit - level + 0.000001)), math.ceil((after - limit) * step / 1000)}
    else
      local left = math.floor(limit - after + 0.000001)
      out[i] = {1, left, left < limit and math.max(0, math.ceil((after - limit + left + 1) * step / 1000)) or 0}
      writes[i] = {cmsgpack.pack({after, now}), math.ceil(after * step / 1000) + 1}
    end
  else
    local current = math.floor(now / step)
    local counts = {}
    for n = 1, 11 do
      counts[n] = 0
    end
    if state then
      local passed = math.max(0, current - state[1])
      for n = 1, 11 - passed do
        counts[n + passed] = state[n + 1]
      end
    end
    if state and state[1] > current then
      state[1] = current
      redis.call('SET', KEYS[i], cmsgpack.pack(state), 'PX', math.ceil(step * 11 / 1000) + 1)
    end
    local free = limit
    for n = 1, 11 do
      free = free - counts[n]
    end
    local fits = cost <= free
    local leave = 1
    if fits then
      counts[1] = counts[1] + cost
    else
      allowed = false
      leave = cost - free
    end
    local n = 11
    while n > 1 do
      leave = leave - counts[n]
      if leave <= 0 then break end
      n = n - 1
    end
    local reset = math.ceil(((current + 12 - n) * step - now) / 1000)
    if fits then
      out[i] = {1, free - cost, reset}
      table.insert(counts, 1, current)
      writes[i] = {cmsgpack.pack(counts), math.ceil(step * 11 / 1000) + 1}
    else
      out[i] = {0, math.max(0, free), reset}
    end
  end
end
if allowed then
  for i, write in pairs(writes) do
    redis.call('SET', KEYS[i], write[1], 'PX', write[2])
  end
end
return out
"""

SCRIPT_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

SET_IF: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == 'd' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2 + 1], 'PX', ARGV[2 + 2])
return 1
"""
"""Set or delete a key while it holds an expected value."""
