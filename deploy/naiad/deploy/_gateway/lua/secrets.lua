-- The files of secrets: read at most once a second by each worker, kept as they were if they cannot be read or are
-- malformed. What a change takes away is gone a second later, without a reload.

local keys = { text = nil, by_digest = {}, seen = {} }
local secrets = { checked_s = 0, triton = nil }

local function read(name)
  local file = io.open(CONFIG.secrets .. "/" .. name, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

-- Seconds since 1970 at the start of a day in UTC (os.time would take it as local time).
local function day_s(year, month, day)
  if month <= 2 then
    year, month = year - 1, month + 12
  end
  local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
  return days * 86400
end

-- A key ends when the day it names begins.
local function end_s(date)
  local year, month, day = string.match(date, "^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if not year then return nil end
  month, day = tonumber(month), tonumber(day)
  if month < 1 or month > 12 or day < 1 or day > 31 then return nil end
  return day_s(tonumber(year), month, day)
end

-- What follows the digest: the day it was made, perhaps the day it ends, perhaps a note. nil if it is something else.
local function parse_end(text)
  text = string.gsub(string.gsub(text, "#.*$", ""), "[ \t\r]+$", "")
  local created, rest = string.match(text, "^[ \t]+created=([%d%-]+)(.*)$")
  if not created or not end_s(created) then return nil end
  if rest == "" then return math.huge end
  return end_s(string.match(rest, "^[ \t]+expires=([%d%-]+)$") or "")
end

-- The keys by digest, or nil and the number of the first wrong line. A last line without its end is wrong, too: it may
-- be half written, and without its `expires=` a key would live forever.
local function parse_keys(text)
  local found, number = {}, 0
  for line, ended in string.gmatch(text, "([^\n]*)(\n?)") do
    number = number + 1
    if line ~= "" and ended == "" then return nil, number end
    if not string.find(line, "^%s*$") and not string.find(line, "^%s*#") then
      local identity, digest, rest = string.match(line, "^%s*(%S+)[ \t]+sha256:([%da-f]+)(.*)$")
      local ends_s = digest and #digest == 64 and parse_end(rest)
      if not ends_s or found[digest] then return nil, number end
      found[digest] = { identity = identity, expires_s = ends_s }
    end
  end
  return found
end

local function refresh(handle)
  local now_s = os.time()
  if now_s == secrets.checked_s then return now_s end
  secrets.checked_s = now_s
  local admin = read("triton-admin-key")
  if admin then secrets.triton = string.match(admin, "^%s*(%S+)%s*$") end
  local text = read("api-keys")
  if text == keys.text then return now_s end
  if not text then
    if keys.unreadable ~= true then handle:logErr("naiad: the file of API keys cannot be read; the last one is kept") end
    keys.unreadable = true
    return now_s
  end
  local by_digest, line = parse_keys(text)
  keys.text, keys.unreadable = text, false
  if not by_digest then
    handle:logErr("naiad: line " .. line .. " of the file of API keys is malformed; the last good one is kept")
    return now_s
  end
  keys.by_digest, keys.seen = by_digest, {}
  return now_s
end

-- The entry of a key, or nil. Only keys that exist are remembered, which bounds the memory.
local function key_entry(key)
  local entry = keys.seen[key]
  if entry then return entry end
  entry = keys.by_digest[sha256(key)]
  keys.seen[key] = entry
  return entry
end
