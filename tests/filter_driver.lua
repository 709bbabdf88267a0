-- Drives the gateway's filter without a gateway: a command a line, an answer a line, bytes in hexadecimal.

local function unhex(text)
  return (string.gsub(text, "%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function hex(text)
  return (string.gsub(text, ".", function(char) return string.format("%02x", string.byte(char)) end))
end

-- As Envoy's buffers: strict about what lies within.
local function buffer(text)
  return {
    length = function() return #text end,
    getBytes = function(_, index, length)
      assert(index >= 0 and length >= 0 and index + length <= #text, "out of the buffer")
      return string.sub(text, index + 1, index + length)
    end,
  }
end

local call = function() return { identity = "fuzz", rights = CONFIG.identities.fuzz, max_bytes = 1e6 } end
local INFER = METHODS["/inference.GRPCInferenceService/ModelInfer"]

local function verdict(ok, problem, ...)
  if ok then return "pass" end
  if type(problem) == "table" then return "refuse " .. problem.reason end
  return "fault " .. tostring(problem)
end

local COMMANDS = {
  sha256 = function(text) return sha256(text) end,
  infer = function(text)
    local asked = call()
    local ok, problem = pcall(check_grpc_body, asked, INFER, buffer(text), #text)
    return ok and ("pass " .. hex(asked.model)) or verdict(ok, problem)
  end,
  stream = function(text, sizes)
    local stream, out, at = new_stream(call(), INFER), {}, 1
    for size in string.gmatch(sizes, "%d+") do
      out[#out + 1] = feed_or_end(stream, string.sub(text, at, at + size - 1))
      at = at + size
    end
    out[#out + 1] = feed_or_end(stream, string.sub(text, at))
    return hex(table.concat(out))
  end,
  fits = function(text)
    local parts, name = {}, string.match(text, "\n(.*)$")
    for part in string.gmatch(string.match(text, "^(.-)\n") .. "*", "(.-)%*") do parts[#parts + 1] = part end
    return tostring(fits(parts, name))
  end,
  json = function(text)
    return verdict(pcall(forbid_in_json, buffer(text), #text, '"shared_memory_region"', "shared-memory", "no"))
  end,
}

for line in io.lines() do
  local command, bytes, rest = string.match(line, "^(%l+%d*) (%x*) ?(.*)$")
  print(COMMANDS[command](unhex(bytes), rest))
end
