-- A stream of inferences: its messages are held until they are whole, and each is checked. A message that may not pass
-- is replaced by one for a model whose name is the reason: nothing else can be said in a stream that has begun, and
-- Triton answers it with an error of that text. What breaks the framing ends in such a message, and nothing after it
-- passes.

local function field(number, text)
  local size = #text
  local length = size < 128 and string.char(size) or string.char(size % 128 + 128, math.floor(size / 128))
  return string.char(number * 8 + 2) .. length .. text
end

local function replacement(reason, id)
  local message = field(1, "refused by the gateway: " .. reason)
  if id and id ~= "" then message = message .. field(3, id) end
  local size = #message
  return string.char(0, 0, 0, math.floor(size / 256), size % 256) .. message
end

local function new_stream(call, method)
  return { call = call, method = method, parts = {}, size = 0, need = 5, num_refused = 0 }
end

local function note_refusal(stream, refusal)
  stream.num_refused = stream.num_refused + 1
  stream.refusal = stream.refusal or refusal
end

-- One whole frame: itself, or what goes in its place.
local function check_frame(stream, frame)
  local r, id = text_reader(frame), nil
  local ok, problem = pcall(function()
    local found = read_message(r, 5, #frame, stream.method, stream.call.rights.admin)
    id = found.id
    local model, version = check_named(stream.call, stream.method, found)
    stream.model = (stream.model == nil or stream.model == model) and model or "several"
    stream.version = version
  end)
  if ok then return frame end
  if type(problem) ~= "table" then error(problem, 0) end
  note_refusal(stream, problem)
  return replacement(problem.message, id)
end

-- Takes bytes, and appends to `out` those that may go on.
local function feed(stream, bytes, out)
  stream.parts[#stream.parts + 1] = bytes
  stream.size = stream.size + #bytes
  if stream.size < stream.need then return end
  local data, at = table.concat(stream.parts), 1
  while true do
    local left = #data - at + 1
    stream.need = 5
    if left < 5 then break end
    local size = frame_size(data, at)
    if size + 5 > stream.call.max_bytes then
      refuse("large", "too-large", "a message of " .. size .. " bytes; " .. stream.call.max_bytes .. " are allowed")
    end
    stream.need = size + 5
    if left < stream.need then break end
    out[#out + 1] = check_frame(stream, string.sub(data, at, at + size + 4))
    at = at + size + 5
  end
  stream.parts, stream.size = { string.sub(data, at) }, #data - at + 1
end

-- Takes bytes, returns those that may go on. Never fails: what does ends the stream.
local function feed_or_end(stream, bytes)
  if stream.ended then return "" end
  local out = {}
  local ok, problem = pcall(feed, stream, bytes, out)
  if not ok then
    stream.ended, stream.parts = true, {}
    local refusal = type(problem) == "table" and problem
      or { kind = "fault", reason = "fault", message = "the gateway failed", detail = tostring(problem) }
    note_refusal(stream, refusal)
    out[#out + 1] = replacement(tostring(refusal.message))
  end
  return table.concat(out)
end

local function note_stream(handle, stream)
  local noted = (stream.model or "") .. " " .. stream.num_refused
  if noted == stream.noted then return end
  stream.noted = noted
  if stream.model then note(handle, "model", stream.model) end
  if stream.version then note(handle, "version", stream.version) end
  if stream.refusal then
    note(handle, "denied", stream.refusal.reason)
    note(handle, "num_refused", tostring(stream.num_refused))
    if stream.refusal.detail then handle:logErr("naiad: " .. stream.refusal.detail) end
  end
end

local function guard_stream(handle, stream)
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      local ok, bytes = pcall(chunk.getBytes, chunk, 0, size)
      local passed = feed_or_end(stream, ok and bytes or nil)
      if not ok or passed ~= bytes then chunk:setBytes(passed) end
      pcall(note_stream, handle, stream)
    end
  end
end
