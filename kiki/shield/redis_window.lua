-- One call of the shared budget window: decide a whole batch, atomically, by the server's clock.
--
-- KEYS are the state (see below) and then every window that the batch names. ARGV[1] is the call and the
-- result is the answer, both in MessagePack; docs/design/redis-window.md describes them and the state. Money
-- is in micros, time in microseconds since the epoch; a Lua number is a double, so the caller keeps every
-- amount it sends and every limit below 2^53, and this script refuses a RECORD that would pass it.
--
-- The steps, in this order:
--   1. read the state and the clock;
--   2. lost, damaged, older or someone else's state: say so and decide nothing (a new epoch where needed);
--   3. a clock further ahead than the caller can explain: say so and change nothing;
--   4. holds whose deadline passed become spends, windows that are idle are marked for removal;
--   5. decide every ask in memory, each against what the ones before it left;
--   6. write everything back. Nothing is written before this, so a failure in 1 to 5 leaves no trace.

local META, LIVE, GRAVE, SCOPES, HOLDS, DEADLINES, HALTS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local OUTCOMES = { KEYS[8], KEYS[9] }
local WINDOW = ARGV[2] -- what stands before a window's name in its key

local CHECK, SPEND, RESERVE, RECORD, COMMIT, RELEASE = 1, 2, 3, 4, 5, 6
local HALTED, ABOVE_LIMIT, EXHAUSTED = 1, 2, 3
local SUM_MAX = 9007199254740991 -- 2^53 - 1: above it a double skips integers
local NEVER = SUM_MAX -- when a window with open holds becomes idle
local BACKWARD_MAX = 1000000 -- a clock may step back this far and is only held still
local EXPIRED_MAX = 500 -- holds charged a call; those left over still count in full as holds
local DEADLINES_MAX = 1000 -- holds looked at to tell when a refused amount fits
local PRIOR_MAX = 64 -- predecessors that an epoch remembers
local NONE = {} -- shared by everything that has none of something: never written to
local LOST = {} -- thrown when the state contradicts itself

local call = cmsgpack.unpack(ARGV[1])
local redis_call, floor, fmod, max = redis.call, math.floor, math.fmod, math.max

local function int(number)
  return string.format('%.0f', number)
end

---------------------------------------------------------------------------------------------------
-- 1. The state and the clock
---------------------------------------------------------------------------------------------------

local now = call.now
if now < 0 then
  local time = redis_call('TIME')
  now = time[1] * 1000000 + time[2]
end

local MINE = 'c:' .. call.chain
local fields = {
  'sequence', 'last', 'ready_at', 'lost_at', 'span_max', 'windows', 'scopes', 'holds', 'deadlines', 'halts',
  'keys_at', 'generation', 'retention', 'keys1', 'keys2', 'authority', MINE,
}
local meta, was = {}, {}
local epoch, salt, prior, why
do
  local values = redis_call('HMGET', META, 'epoch', 'salt', 'prior', 'why', unpack(fields))
  epoch, salt, prior, why = values[1], values[2], values[3] or '', values[4] or ''
  for at, field in ipairs(fields) do
    was[field] = values[at + 4]
    meta[field] = tonumber(values[at + 4] or 0)
  end
end
if meta.generation == 0 then meta.generation = 1 end

local function reply(status, answers)
  return cmsgpack.pack({
    status, now, epoch or '', meta.sequence, meta.ready_at, salt or '', why, meta.halts, answers or {},
    meta.authority,
  })
end

local function write_meta()
  local changed = {}
  for _, field in ipairs(fields) do
    local text = int(meta[field])
    if was[field] ~= text then
      changed[#changed + 1] = field
      changed[#changed + 1] = text
    end
  end
  if #changed > 0 then redis_call('HSET', META, unpack(changed)) end
end

---------------------------------------------------------------------------------------------------
-- Windows, in memory until step 6. The slot being filled is `current`, up to `slot_end`; filled slots are a
-- queue from `head` to `tail`, each a field of the hash with its end and its sum; `used` is the sum of all.
---------------------------------------------------------------------------------------------------

local loaded, order, dead, dead_seen, scope_counts, holds, expired, outcomes, forgotten, forget_generation, run

local function forget_all()
  loaded, order, dead, dead_seen, scope_counts = {}, {}, {}, 0, {}
  holds, expired, outcomes, forgotten, forget_generation, run = {}, {}, {}, {}, {}, nil
end

local function idle_at(w)
  if w.held > 0 then return NEVER end
  if w.used == 0 then return now end
  return (w.current > 0 and w.slot_end or w.last_end) + w.span
end

local function load(name)
  local w = loaded[name]
  if w then return w end
  local span = tonumber(string.match(name, '^(%d+):'))
  w = { name = name, key = WINDOW .. name, span = span, width = math.ceil(span / call.slots) }
  w.appended, w.released, w.slots = NONE, NONE, NONE
  local packed = redis_call('HGET', w.key, 'm')
  local m = packed and cmsgpack.unpack(packed)
  if m and m[1] == epoch then
    w.used, w.held, w.current, w.slot_end = m[2], m[3], m[4], m[5]
    w.head, w.tail, w.head_end, w.last_end = m[6], m[7], m[8], m[9]
    w.score = idle_at(w)
  else
    -- A window that is on the list of the living but has no hash was evicted or deleted.
    if not packed and redis_call('ZSCORE', LIVE, name) then error(LOST) end
    w.used, w.held, w.current, w.slot_end = 0, 0, 0, 0
    w.head, w.tail, w.head_end, w.last_end = 0, 0, 0, 0
    w.new, w.wiped = true, packed ~= false -- what an earlier epoch left here is void
  end
  loaded[name] = w
  order[#order + 1] = w
  dead[name] = nil
  return w
end

local function slot(w, at, chunk)
  local found = w.appended[at] or w.slots[at]
  if found then return found end
  local names, last = {}, math.min(at + chunk, w.tail) - 1
  for index = at, last do names[#names + 1] = int(index) end
  local values = redis_call('HMGET', w.key, unpack(names))
  for index = at, last do
    local value = values[index - at + 1]
    if value then
      if w.slots == NONE then w.slots = {} end
      w.slots[index] = cmsgpack.unpack(value)
    elseif not w.appended[index] then
      error(LOST)
    end
  end
  return w.appended[at] or w.slots[at]
end

-- Close the slot that ended, and release every slot that is wholly out of the window at `t`.
local function advance(w, t)
  if t >= w.slot_end then
    if w.current > 0 then
      if w.appended == NONE then w.appended = {} end
      w.appended[w.tail] = { w.slot_end, w.current }
      if w.head == w.tail then w.head_end = w.slot_end end
      w.last_end, w.tail, w.current, w.dirty = w.slot_end, w.tail + 1, 0, true
    end
    w.slot_end = t - fmod(t, w.width) + w.width
  end
  local gone = t - w.span
  if w.head == w.tail or w.head_end > gone then return end
  w.dirty = true
  if w.last_end <= gone then -- all of them at once
    w.used, w.head, w.tail, w.appended, w.slots, w.released, w.wiped = w.current, 0, 0, NONE, NONE, NONE, true
    return
  end
  while w.head_end <= gone do
    w.used = w.used - slot(w, w.head, 16)[2]
    if w.appended[w.head] then
      w.appended[w.head] = nil
    else
      if w.released == NONE then w.released = {} end
      w.released[#w.released + 1] = int(w.head)
    end
    w.head = w.head + 1
    w.head_end = slot(w, w.head, 16)[1]
  end
end

local function room(w)
  return w.limit - w.used - w.held
end

local function scope_of(name)
  return string.match(name, '\t(.*)$')
end

---------------------------------------------------------------------------------------------------
-- Scopes: how many have a window of their own, up to a cap; idle windows are removed, live ones never
---------------------------------------------------------------------------------------------------

local function scope_count(scope)
  local count = scope_counts[scope]
  if not count then
    count = tonumber(redis_call('HGET', SCOPES, scope) or 0)
    scope_counts[scope] = count
  end
  return count
end

local function change_scope(scope, by)
  if scope == '*' then return end
  local before = scope_count(scope)
  scope_counts[scope] = before + by
  if before == 0 then meta.scopes = meta.scopes + 1 end
  if before + by == 0 then meta.scopes = meta.scopes - 1 end
end

local function bury(most)
  local idle = redis_call('ZRANGEBYSCORE', LIVE, '-inf', int(now), 'LIMIT', dead_seen, most)
  dead_seen = dead_seen + #idle
  for _, name in ipairs(idle) do
    if not loaded[name] then
      dead[name] = true
      meta.windows = meta.windows - 1
      change_scope(scope_of(name), -1)
    end
  end
end

-- A window that was marked for removal and then loaded after all lives on.
local function load_alive(name)
  if dead[name] then
    dead[name] = nil
    meta.windows = meta.windows + 1
    change_scope(scope_of(name), 1)
  end
  return load(name)
end

local function new_scopes(windows, seen)
  local count = 0
  for _, w in ipairs(windows) do
    local scope = w.new and not w.enrolled and scope_of(w.name)
    if scope and scope ~= '*' and not seen[scope] and scope_count(scope) == 0 then
      seen[scope] = true
      count = count + 1
    end
  end
  return count
end

local function too_many(count)
  if count == 0 then return false end
  if meta.scopes + count > call.scopes_max then bury(100) end
  return meta.scopes + count > call.scopes_max
end

local function enrol(w)
  w.dirty = true
  if w.new and not w.enrolled then
    w.enrolled = true
    meta.windows = meta.windows + 1
    change_scope(scope_of(w.name), 1)
  end
end

---------------------------------------------------------------------------------------------------
-- Holds and the outcomes of keys
---------------------------------------------------------------------------------------------------

local hold_changes, due_holds = 0, nil

-- A hold is { amount, deadline (-1: none), made_at, chain, names of its windows, its scopes, made with a key }.
local function find_hold(id)
  local hold = holds[id]
  if hold ~= nil then return hold end
  local packed = redis_call('HGET', HOLDS, id)
  return packed and cmsgpack.unpack(packed)
end

local function keep_hold(id, hold)
  holds[id] = hold
  meta.holds = meta.holds + 1
  if hold[2] >= 0 then meta.deadlines = meta.deadlines + 1 end
  hold_changes = hold_changes + 1
end

local function end_hold(id, hold, spent, at)
  for _, name in ipairs(hold[5]) do
    local w = load_alive(name)
    advance(w, at)
    enrol(w)
    w.held = w.held - hold[1]
    w.used = w.used + spent
    w.current = w.current + spent
  end
  holds[id] = false
  meta.holds = meta.holds - 1
  if hold[2] >= 0 then
    meta.deadlines = meta.deadlines - 1
    expired[#expired + 1] = id
  end
  hold_changes = hold_changes + 1
end

local function recall(key)
  local packed = outcomes[key]
  for generation = 1, 2 do
    if not packed and meta['keys' .. generation] > 0 and not forget_generation[generation] then
      packed = redis_call('HGET', OUTCOMES[generation], key)
    end
  end
  return packed and cmsgpack.unpack(packed)
end

local function remember(key, fingerprint, sequence, answer)
  outcomes[key] = cmsgpack.pack({ fingerprint, now, sequence, epoch, answer })
  local count = 'keys' .. int(meta.generation)
  meta[count] = meta[count] + 1
end

local function unremember(key)
  if outcomes[key] then
    outcomes[key] = nil
    local count = 'keys' .. int(meta.generation)
    meta[count] = meta[count] - 1
  end
  for generation = 1, 2 do
    local count = 'keys' .. generation
    if meta[count] > 0 and not forget_generation[generation]
      and redis_call('HEXISTS', OUTCOMES[generation], key) == 1 then
      meta[count] = meta[count] - 1
      forgotten[#forgotten + 1] = { OUTCOMES[generation], key }
    end
  end
end

-- Two generations: a key lives for at least the retention, and the older of them leaves as a whole.
local function turn_generation()
  meta.retention = max(meta.retention, call.retention)
  if now < meta.keys_at + meta.retention then return end
  local older = 3 - meta.generation
  if meta['keys' .. older] > 0 then forget_generation[older] = true end
  meta['keys' .. older] = 0
  if now >= meta.keys_at + 2 * meta.retention then
    if meta['keys' .. meta.generation] > 0 then forget_generation[meta.generation] = true end
    meta['keys' .. meta.generation] = 0
  end
  meta.generation, meta.keys_at = older, now
end

-- Each hold becomes a spend of its own deadline, in order of time: whoever looks first finds the same slots.
local function expire()
  if meta.deadlines == 0 then return end
  for _, id in ipairs(redis_call('ZRANGEBYSCORE', DEADLINES, '-inf', int(now), 'LIMIT', 0, EXPIRED_MAX)) do
    local hold = find_hold(id)
    if not hold then error(LOST) end
    end_hold(id, hold, hold[1], hold[2])
    remember('s' .. id, '', 0, {})
  end
end

---------------------------------------------------------------------------------------------------
-- 6. Writing back
---------------------------------------------------------------------------------------------------

local function write_window(w)
  if w.wiped then redis_call('DEL', w.key) end
  if #w.released > 0 and not w.wiped then redis_call('HDEL', w.key, unpack(w.released)) end
  local changed = { 'm', cmsgpack.pack({
    epoch, w.used, w.held, w.current, w.slot_end, w.head, w.tail, w.head_end, w.last_end,
  }) }
  for index, value in pairs(w.appended) do
    changed[#changed + 1] = int(index)
    changed[#changed + 1] = cmsgpack.pack(value)
  end
  redis_call('HSET', w.key, unpack(changed))
  local score = idle_at(w)
  if score ~= w.score then redis_call('ZADD', LIVE, int(score), w.name) end
end

local function write_back()
  for generation in pairs(forget_generation) do redis_call('UNLINK', OUTCOMES[generation]) end
  for _, w in ipairs(order) do
    if w.dirty then write_window(w) end
  end
  for name in pairs(dead) do
    redis_call('DEL', WINDOW .. name)
    redis_call('ZREM', LIVE, name)
  end
  for scope, count in pairs(scope_counts) do
    if count > 0 then redis_call('HSET', SCOPES, scope, int(count)) else redis_call('HDEL', SCOPES, scope) end
  end
  for _, id in ipairs(expired) do redis_call('ZREM', DEADLINES, id) end
  for id, hold in pairs(holds) do
    if hold then
      redis_call('HSET', HOLDS, id, cmsgpack.pack(hold))
      if hold[2] >= 0 then redis_call('ZADD', DEADLINES, int(hold[2]), id) end
    else
      redis_call('HDEL', HOLDS, id)
    end
  end
  for _, each in ipairs(forgotten) do redis_call('HDEL', each[1], each[2]) end
  for key, packed in pairs(outcomes) do redis_call('HSET', OUTCOMES[meta.generation], key, packed) end
  -- Windows of earlier epochs are void already; a few leave at a time.
  for _, name in ipairs(redis_call('ZRANGE', GRAVE, 0, 3)) do
    local packed = redis_call('HGET', WINDOW .. name, 'm')
    if packed and cmsgpack.unpack(packed)[1] ~= epoch then redis_call('DEL', WINDOW .. name) end
    redis_call('ZREM', GRAVE, name)
  end
  meta.last = now
  write_meta()
end

---------------------------------------------------------------------------------------------------
-- 2. Whose state is this, and is it whole?
---------------------------------------------------------------------------------------------------

local function remember_prior(which)
  local known, count = which, 1
  for old in string.gmatch(prior, '%S+') do
    if old ~= which and count < PRIOR_MAX then
      known, count = known .. ' ' .. old, count + 1
    end
  end
  prior = known
end

-- Begin a new epoch: every window is empty from here on, and unless `at_once` nothing is admitted until the
-- longest window has passed. Holds and the outcomes of keys that are still there are true, and are kept.
local function begin(reason, at_once)
  if epoch then remember_prior(epoch) end
  if call.known ~= '' then remember_prior(call.known) end
  local span, sequence = max(meta.span_max, call.span_max), meta.sequence
  local retention = max(meta.retention, call.retention)
  if redis_call('EXISTS', LIVE) == 1 then redis_call('ZUNIONSTORE', GRAVE, 2, GRAVE, LIVE) end
  redis_call('DEL', META)
  redis_call('UNLINK', LIVE, SCOPES)
  redis_call('DEL', DEADLINES)
  epoch, why, salt = call.fresh, reason, salt or call.salt
  forget_all()
  for field in pairs(meta) do meta[field], was[field] = 0, false end
  meta.sequence, meta.span_max, meta.retention, meta.keys_at, meta.generation = sequence, span, retention, now, 1
  if not at_once then meta.lost_at, meta.ready_at = now, now + span end
  redis_call('HSET', META, 'epoch', epoch, 'salt', salt, 'prior', prior, 'why', why)
  meta.halts, meta.holds = redis_call('HLEN', HALTS), redis_call('HLEN', HOLDS)
  meta.keys1, meta.keys2 = redis_call('HLEN', OUTCOMES[1]), redis_call('HLEN', OUTCOMES[2])
  local kept = meta.holds > 0 and redis_call('HGETALL', HOLDS) or {}
  for at = 1, #kept, 2 do
    local hold = cmsgpack.unpack(kept[at + 1])
    for _, name in ipairs(hold[5]) do
      local w = load(name)
      advance(w, now)
      enrol(w)
      w.held = w.held + hold[1]
    end
    if hold[2] >= 0 then
      redis_call('ZADD', DEADLINES, int(hold[2]), kept[at])
      meta.deadlines = meta.deadlines + 1
    end
  end
  write_back()
  return reply('moved')
end

-- Each part is counted in META, so that one which was evicted or deleted is missed at once.
local function is_damaged()
  return redis_call('ZCARD', LIVE) ~= meta.windows or redis_call('HLEN', SCOPES) ~= meta.scopes
    or redis_call('HLEN', HOLDS) ~= meta.holds or redis_call('ZCARD', DEADLINES) ~= meta.deadlines
    or redis_call('HLEN', HALTS) ~= meta.halts
    or redis_call('HLEN', OUTCOMES[1]) ~= meta.keys1 or redis_call('HLEN', OUTCOMES[2]) ~= meta.keys2
end

forget_all()

if not epoch then
  if call.known ~= '' then return begin('emptied') end
  -- Remains without their head are lost state, whoever comes by.
  local remains = redis_call('EXISTS', LIVE, HOLDS, OUTCOMES[1], OUTCOMES[2], SCOPES)
  return begin(remains > 0 and 'damaged' or 'new', call.loopback and remains == 0)
end
-- What this process was answered last is in the state, unless an older copy of it came back.
if epoch == call.known and meta[MINE] < call.mine then return begin('older') end
if is_damaged() then return begin('damaged') end
if now < meta.last - BACKWARD_MAX or (call.distrust and epoch == call.known) then return begin('clock') end
now = max(now, meta.last)

if epoch ~= call.known then
  -- Adopted, not begun: whoever knew another epoch has spent in windows that this one may not know.
  local long_ago = call.outdated and call.known_at + max(meta.span_max, call.span_max) <= now
  if call.known ~= '' and not long_ago then
    local follows = false
    for old in string.gmatch(prior, '%S+') do follows = follows or old == call.known end
    if not follows then
      -- Imposed once: every process that comes from the same epoch finds it among the predecessors now.
      why, meta.lost_at = 'replaced', now
      remember_prior(call.known)
      redis_call('HSET', META, 'prior', prior, 'why', why)
    end
    -- The quarantine covers the windows of the processes that were here before, not only its beginner's.
    if meta.lost_at > 0 then
      meta.ready_at = max(meta.ready_at, meta.lost_at + max(call.span_max, follows and 0 or meta.span_max))
    end
  end
  meta.span_max, meta.last = max(meta.span_max, call.span_max), now
  write_meta()
  return reply('moved')
end

-- The caller is about to count this state anew from the ledgers of all: it begins with empty windows.
if call.renew == epoch then return begin('rebuilding') end

---------------------------------------------------------------------------------------------------
-- 3. A clock that ran ahead
---------------------------------------------------------------------------------------------------

-- Nothing is changed: the caller can tell a late call from a clock that jumped, and comes again.
if call.ceiling >= 0 and now > call.ceiling then return reply('ahead') end

---------------------------------------------------------------------------------------------------
-- 5. Deciding
---------------------------------------------------------------------------------------------------

local lanes, halts = {}, {}

-- A lane is every window that a spend with certain scopes is counted on. What consecutive asks take from one
-- lane is summed up in `run` and put into its windows when another lane, or another verb, comes.
local function end_run()
  if run then
    if run.taken > 0 then
      for _, w in ipairs(run.windows) do
        enrol(w)
        w.used = w.used + run.taken
        w.current = w.current + run.taken
      end
    end
    run = nil
  end
end

local function halted(scopes)
  for _, halt in ipairs(halts) do
    local pattern = halt[1]
    if pattern == '*' then return '*' end
    local each = string.sub(pattern, -2) == ':*' and string.sub(pattern, 1, -2)
    for _, scope in ipairs(scopes) do
      if scope == pattern or (each and string.sub(scope, 1, #each) == each) then return scope end
    end
  end
  return nil
end

local function lane(index)
  local found = lanes[index]
  if not found then
    local given = call.lanes[index + 1]
    found = { windows = {}, halted = #halts > 0 and halted(given[2]) or nil, scopes = given[2], names = {} }
    for at, place in ipairs(given[1]) do
      local name, limit = unpack(call.windows[place + 1])
      local w = load_alive(name)
      w.limit = limit
      found.windows[at], found.names[at] = w, name
      advance(w, now)
    end
    lanes[index] = found
  end
  return found
end

local function start_run(l)
  if run ~= l then
    end_run()
    local least = SUM_MAX
    for _, w in ipairs(l.windows) do least = math.min(least, room(w)) end
    l.room, l.taken, l.fresh = least, 0, false
    for _, w in ipairs(l.windows) do l.fresh = l.fresh or (w.new and not w.enrolled) end
    run = l
  end
end

local function later(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end

-- The open holds with the nearest deadlines, of all windows, in order.
local function coming_deadlines()
  if due_holds and due_holds.changes == hold_changes then return due_holds end
  due_holds = { changes = hold_changes, whole = true }
  local ids = redis_call('ZRANGE', DEADLINES, 0, DEADLINES_MAX - 1)
  due_holds.whole = #ids < DEADLINES_MAX
  local found = {}
  for _, id in ipairs(ids) do found[id] = find_hold(id) end
  for id, hold in pairs(holds) do found[id] = hold end
  for _, hold in pairs(found) do
    if hold and hold[2] >= 0 then due_holds[#due_holds + 1] = { hold[2], hold[1], hold[5] } end
  end
  table.sort(due_holds, later)
  return due_holds
end

-- The first moment at which `amount` fits if nothing else happens; -1: never, or not knowable.
local function fits_at(w, amount)
  if amount > w.limit then return -1 end
  local need = amount - room(w)
  if not w.sums then -- made once a call: filled slots only change when the clock does
    w.sums, w.ends = {}, {}
    local sum = 0
    for at = w.head, w.tail - 1 do
      local filled = slot(w, at, 200)
      sum = sum + filled[2]
      w.sums[#w.sums + 1], w.ends[#w.ends + 1] = sum, filled[1]
    end
  end
  local low, high = 1, #w.sums + 1
  while low < high do
    local middle = floor((low + high) / 2)
    if w.sums[middle] >= need then high = middle else low = middle + 1 end
  end
  if low <= #w.sums then return w.ends[low] + w.span end
  need = need - (w.sums[#w.sums] or 0)
  if w.current > 0 then
    need = need - w.current
    if need <= 0 then return w.slot_end + w.span end
  end
  if w.held > 0 then
    local due = coming_deadlines()
    for _, hold in ipairs(due) do
      for _, name in ipairs(hold[3]) do
        if name == w.name then
          need = need - hold[2]
          if need <= 0 then return hold[1] - fmod(hold[1], w.width) + w.width + w.span end
          break
        end
      end
    end
  end
  return -1
end

-- The refusal that keeps a spend out longest: one that never ends before one that ends last.
local function refuse(l, amount, index)
  local binding, binding_rank, binding_at
  for _, w in ipairs(l.windows) do
    if amount > room(w) then
      local above = amount > w.limit
      local retry_at = fits_at(w, amount)
      local rank = above and 2 or (retry_at < 0 and 1 or 0)
      if not binding or rank > binding_rank or (rank == binding_rank and retry_at > binding_at) then
        local span, budget, scope = string.match(w.name, '^(%d+):(.-)\t(.*)$')
        binding = {
          index, above and ABOVE_LIMIT or EXHAUSTED, budget, scope, tonumber(span), w.limit, room(w), retry_at,
        }
        binding_rank, binding_at = rank, retry_at
      end
    end
  end
  return binding
end

local function refuse_halted(l, index)
  return { index, HALTED, '', l.halted, 0, 0, 0, -1 }
end

-- Take `amount` if it fits in every window of the lane: nil when it was taken, else the refusal, else an error.
local function admit(l, amount, index)
  if l.halted then return refuse_halted(l, index) end
  start_run(l)
  if amount > l.room then
    end_run()
    return refuse(l, amount, index)
  end
  if l.fresh then
    if too_many(new_scopes(l.windows, {})) then return nil, { 9, 'scopes' } end
    for _, w in ipairs(l.windows) do enrol(w) end
    l.fresh = false
  end
  l.room, l.taken = l.room - amount, l.taken + amount
  return nil
end

local function peek(l, amount, index)
  if l.halted then return refuse_halted(l, index) end
  start_run(l)
  if amount <= l.room then return nil end
  end_run()
  return refuse(l, amount, index)
end

local decide = {}

local function decide_each(ask, decide_one)
  local lanes_of, amounts = ask[2], ask[3]
  if type(amounts) ~= 'table' then
    local refusal, failure = decide_one(lane(lanes_of), amounts, 0)
    return failure or (refusal and { 1, { refusal } }) or 0
  end
  local one = type(lanes_of) ~= 'table' and lane(lanes_of)
  if decide_one == admit then
    -- All amounts of a call find room for their scopes, or none is taken.
    local seen, count = {}, 0
    if one then
      count = new_scopes(one.windows, seen)
    else
      for _, index in ipairs(lanes_of) do count = count + new_scopes(lane(index).windows, seen) end
    end
    if too_many(count) then return { 9, 'scopes' } end
  end
  local refusals = {}
  for at, amount in ipairs(amounts) do
    local refusal, failure = decide_one(one or lane(lanes_of[at]), amount, at - 1)
    if failure then return failure end
    refusals[#refusals + 1] = refusal
  end
  return #refusals > 0 and { 1, refusals } or 0
end

decide[SPEND] = function(ask) return decide_each(ask, admit) end
decide[CHECK] = function(ask) return decide_each(ask, peek) end

decide[RESERVE] = function(ask)
  local l, amount, id = lane(ask[2]), ask[3], ask[6]
  if find_hold(id) then return { 9, 'hold_exists' } end
  local refusal, failure = admit(l, amount, 0)
  if failure then return failure end
  if refusal then return { 1, { refusal } } end
  l.taken = l.taken - amount
  end_run()
  for _, w in ipairs(l.windows) do
    enrol(w)
    w.held = w.held + amount
  end
  local deadline = ask[7] >= 0 and now + ask[7] or -1
  keep_hold(id, { amount, deadline, now, call.chain, l.names, l.scopes, ask[4] ~= '' })
  return { 2, id, deadline, now }
end

decide[RECORD] = function(ask)
  local l, amount = lane(ask[2]), ask[3]
  end_run()
  for _, w in ipairs(l.windows) do
    if w.used + w.held + amount > SUM_MAX then
      return { 9, 'sum', string.match(w.name, '^%d+:(.-)\t') }
    end
  end
  if too_many(new_scopes(l.windows, {})) then return { 9, 'scopes' } end
  for _, w in ipairs(l.windows) do
    enrol(w)
    w.used, w.current = w.used + amount, w.current + amount
  end
  return 0
end

local function settle(ask, sequence)
  end_run()
  local id, spent, remembered = ask[6], ask[1] == COMMIT and ask[3] or 0, 's' .. ask[6]
  local fingerprint = ask[1] .. ':' .. int(spent)
  local hold = find_hold(id)
  if hold and hold[2] >= 0 and hold[2] <= now then -- overdue, and not noticed yet: there were too many
    end_hold(id, hold, hold[1], hold[2])
    remember(remembered, '', 0, {})
    hold = false
  end
  if not hold then
    local known = recall(remembered)
    if known and known[1] == fingerprint then return { 4, known[2], known[3], known[4], known[5] } end
    return { 9, 'hold_unknown' }
  end
  if spent > hold[1] then return { 9, 'hold_exceeded', hold[1] } end
  end_hold(id, hold, spent, now)
  local answer = { 3, hold[1], spent, hold[2] }
  remember(remembered, fingerprint, sequence, answer)
  return answer
end

decide[COMMIT], decide[RELEASE] = settle, settle

-- What a keyed ask was answered the first time, or why it cannot be asked; nil: it is new.
local function answer_again(ask, ready)
  local known = recall(ask[4])
  if known then
    if known[1] ~= ask[5] then return { 9, 'key_reused' } end
    return { 4, known[2], known[3], known[4], known[5] }
  end
  if ready and meta.keys1 + meta.keys2 >= call.keys_max then return { 9, 'keys' } end
  return nil
end

-- Count a hold of this process again, or in windows that a new policy gave it. Idempotent, and over any limit:
-- what was reserved once counts. `is_open`: every ledger was read, and none has an end of it, whatever was answered.
local function adopt(given)
  local id, amount, deadline, made_at, names, scopes, is_open = unpack(given)
  if deadline >= 0 and deadline <= now then
    -- It became a spend of that moment: before a loss the quarantine waits it out, and long ago it is over.
    if deadline <= meta.lost_at or deadline + meta.span_max <= now then return 'over' end
  end
  local hold = find_hold(id)
  if not hold and recall('s' .. id) then
    if not is_open then return 'over' end
    unremember('s' .. id)
  end
  local counted, missing = {}, {}
  for _, name in ipairs(hold and hold[5] or {}) do counted[name] = true end
  for _, name in ipairs(names) do
    if not counted[name] then missing[#missing + 1] = load_alive(name) end
  end
  for _, w in ipairs(missing) do
    advance(w, now)
    if w.used + w.held + amount > SUM_MAX then return 'sum' end
  end
  for _, w in ipairs(missing) do
    enrol(w)
    w.held = w.held + amount
  end
  if not hold then
    keep_hold(id, { amount, deadline, made_at, call.chain, names, scopes })
  elseif #missing > 0 then
    for _, w in ipairs(missing) do hold[5][#hold[5] + 1] = w.name end
    holds[id] = hold
    hold_changes = hold_changes + 1
  end
  return 'counted'
end

-- Count spends of the past, as (end of their slot, sum), besides what the window has counted since.
local function restore(name, given)
  local w = load_alive(name)
  advance(w, now)
  local sums, ends = {}, {}
  local function add(ending, sum)
    if not sums[ending] then
      sums[ending] = 0
      ends[#ends + 1] = ending
    end
    sums[ending] = sums[ending] + sum
  end
  for at = w.head, w.tail - 1 do add(unpack(slot(w, at, 200))) end
  if w.current > 0 then add(w.slot_end, w.current) end
  for _, spent in ipairs(given) do
    if spent[1] + w.span > now then add(math.min(spent[1], w.slot_end), spent[2]) end
  end
  table.sort(ends)
  w.used, w.current, w.head, w.tail, w.head_end, w.last_end = 0, 0, 0, 0, 0, 0
  w.appended, w.slots, w.released, w.wiped = {}, NONE, NONE, true
  for _, ending in ipairs(ends) do
    w.used = w.used + sums[ending]
    if ending >= w.slot_end then
      w.current = sums[ending]
    else
      w.appended[w.tail] = { ending, sums[ending] }
      if w.tail == 0 then w.head_end = ending end
      w.last_end, w.tail = ending, w.tail + 1
    end
  end
  enrol(w)
end

local function switch(pattern, on)
  if on then
    meta.halts = meta.halts + redis_call('HSETNX', HALTS, pattern, int(meta.sequence))
  else
    meta.halts = meta.halts - redis_call('HDEL', HALTS, pattern)
  end
end

local function look(name)
  local w = load_alive(name)
  advance(w, now)
  local room_at = -1
  if w.tail > w.head then
    room_at = w.head_end + w.span
  elseif w.current > 0 then
    room_at = w.slot_end + w.span
  end
  return { w.used, w.held, room_at }
end

local function work()
  turn_generation()
  expire()
  bury(4 + 2 * #call.windows)
  meta.span_max = max(meta.span_max, call.span_max)
  if meta.halts > 0 then
    local flat = redis_call('HGETALL', HALTS)
    for at = 1, #flat, 2 do halts[#halts + 1] = { flat[at], tonumber(flat[at + 1]) } end
    table.sort(halts, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end)
  end
  local answers = {}
  local first = meta.sequence
  local ready = now >= meta.ready_at
  for at, ask in ipairs(call.asks) do
    local verb, keyed = ask[1], ask[4] and ask[4] ~= ''
    local answer = keyed and answer_again(ask, ready) or nil
    if not answer then
      if not ready and verb <= RESERVE then
        answer = { 9, 'quarantine' }
      else
        answer = decide[verb](ask, first + at)
        if keyed and not (type(answer) == 'table' and answer[1] == 9) then
          remember(ask[4], ask[5], first + at, answer)
        end
      end
    end
    answers[at] = answer
  end
  end_run()
  for at, hold in ipairs(call.adopt) do answers[at] = adopt(hold) end
  for at, name in ipairs(call.look) do answers[at] = look(name) end
  for _, given in ipairs(call.restore) do restore(given[1], given[2]) end
  if call.lift > 0 then
    -- Everything that was spent is counted: there is nothing left to wait out.
    meta.authority, meta.ready_at, meta.lost_at = call.lift, 0, 0
  end
  meta.sequence = first + #call.asks + (#call.halt > 0 and 1 or 0)
  meta[MINE] = max(meta.sequence, 1)
  return answers
end

local fine, result = pcall(work)
if not fine then
  if result == LOST then return begin('damaged') end
  return redis.error_reply(type(result) == 'table' and result.err or tostring(result))
end
if #call.halt > 0 then switch(call.halt[1], call.halt[2]) end
write_back()
return reply('decided', result)
