-- Reads protobuf messages where they lie: only tags, lengths and names are copied, never tensors.
-- Stricter than the format: what two parsers could read in two ways is refused (see the encoding's specification,
-- protobuf.dev/programming-guides/encoding).

local WINDOW = 512
local MAX_FIELDS = 20000

local function malformed(what)
  refuse("invalid", "malformed", "the message is malformed: " .. what)
end

-- `source` has getBytes(index, length), as Envoy's buffers have.
local function reader(source, size)
  return { source = source, size = size, from = 0, upto = 0, window = "", num_fields = 0 }
end

local function text_reader(text)
  return { size = #text, from = 0, upto = #text, window = text, num_fields = 0 }
end

local function byte_at(r, at)
  if at >= r.size then malformed("it ends too early") end
  if at < r.from or at >= r.upto then
    local length = math.min(WINDOW, r.size - at)
    r.window, r.from, r.upto = r.source:getBytes(at, length), at, at + length
  end
  return string.byte(r.window, at - r.from + 1)
end

local function slice(r, at, length)
  if length == 0 then return "" end
  if at >= r.from and at + length <= r.upto then
    return string.sub(r.window, at - r.from + 1, at - r.from + length)
  end
  return r.source:getBytes(at, length)
end

-- A tag has at most two bytes (fields up to 2047) and no more than it needs.
local function read_tag(r, at)
  local low = byte_at(r, at)
  if low < 128 then return low, at + 1 end
  local high = byte_at(r, at + 1)
  if high == 0 or high >= 128 then malformed("a tag") end
  return low - 128 + high * 128, at + 2
end

local function read_length(r, at)
  local value, factor = 0, 1
  for i = 0, 4 do
    local byte = byte_at(r, at + i)
    if byte < 128 then return value + byte * factor, at + i + 1 end
    value, factor = value + (byte - 128) * factor, factor * 128
  end
  malformed("a length")
end

local function skip_varint(r, at)
  for i = 0, 9 do
    if byte_at(r, at + i) < 128 then return at + i + 1 end
  end
  malformed("a number")
end

-- Calls `visit(number, at, length)` for each field with bytes, and returns nothing.
local function each_field(r, at, stop, visit)
  while at < stop do
    r.num_fields = r.num_fields + 1
    if r.num_fields > MAX_FIELDS then malformed("more than " .. MAX_FIELDS .. " fields") end
    local tag, length
    tag, at = read_tag(r, at)
    local number, wire = math.floor(tag / 8), tag % 8
    if number == 0 then malformed("a field 0") end
    if wire == 2 then
      length, at = read_length(r, at)
      if at + length > stop then malformed("a field is longer than its message") end
      visit(number, at, length)
      at = at + length
    elseif wire == 0 then
      at = skip_varint(r, at)
    elseif wire == 1 or wire == 5 then
      at = at + (wire == 1 and 8 or 4)
    else
      malformed("a group")
    end
  end
  if at ~= stop then malformed("a field is longer than its message") end
end

-- A text field that may be there once, or again with the same content.
local function once(found, r, at, length, limit)
  if length > limit then refuse("invalid", "model-name", "a name of " .. length .. " bytes") end
  local text = slice(r, at, length)
  if found and found ~= text then refuse("invalid", "malformed", "the message names two different models") end
  return text
end

local function visit_parameters(r, at, length, field, forbid)
  each_field(r, at, at + length, function(number, entry_at, entry_length)
    if number == field then
      each_field(r, entry_at, entry_at + entry_length, function(key, key_at, key_length)
        if key == 1 and key_length <= 255 then forbid(slice(r, key_at, key_length)) end
      end)
    end
  end)
end

local function forbid_region(key)
  if key == "shared_memory_region" then
    refuse("denied", "shared-memory", "only administrators may use shared memory through the gateway")
  end
end

local function forbid_file(key)
  if string.find(key, "^file:") then
    refuse("denied", "model-file", "a model's files come from its repository, not from a request")
  end
end

-- Reads the model, its version and the request's id from the message between `at` and `stop`.
local function read_message(r, at, stop, method, admin)
  local found = {}
  each_field(r, at, stop, function(number, field_at, length)
    if number == method.model then
      found.model = once(found.model, r, field_at, length, 255)
    elseif number == method.version then
      found.version = once(found.version, r, field_at, length, 20)
    elseif method.infers and number == 3 then
      found.id = length <= 255 and slice(r, field_at, length) or nil
    elseif method.infers and (number == 5 or number == 6) and not admin then
      visit_parameters(r, field_at, length, number == 5 and 4 or 2, forbid_region)
    elseif method.loads and number == 3 then
      each_field(r, field_at, field_at + length, function(key, key_at, key_length)
        if key == 1 then forbid_file(slice(r, key_at, math.min(key_length, 255))) end
      end)
    end
  end)
  return found
end
