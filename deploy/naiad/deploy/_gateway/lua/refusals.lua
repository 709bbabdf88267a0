-- A refusal is a Lua error that is a table; every other Lua error is a fault of ours. Both end at the one `pcall` in
-- authorize.lua, so that nothing passes that was not decided: Envoy itself would let a request pass whose filter failed.

local KINDS = {
  unauthenticated = { grpc = 16, http = 401 },
  denied = { grpc = 7, http = 403 },
  invalid = { grpc = 3, http = 400 },
  unknown = { grpc = 12, http = 404 },
  method = { grpc = 12, http = 405 },
  encoding = { grpc = 3, http = 415 },
  large = { grpc = 8, http = 413 },
  fault = { grpc = 13, http = 500 },
}

-- `reason` is what the access log says (a word), `message` what the caller reads.
local function refuse(kind, reason, message)
  error({ kind = kind, reason = reason, message = message }, 0)
end

local function quoted(text)
  return (string.gsub(text, '[%c"\\]', function(char) return string.format("\\u%04x", string.byte(char)) end))
end

-- The message of a gRPC status travels percent-encoded.
local function percent(text)
  return (string.gsub(text, "[^ -$&-~]", function(char) return string.format("%%%02X", string.byte(char)) end))
end

local function answer(handle, call, refusal)
  local status = KINDS[refusal.kind]
  if call.grpc then
    handle:respond({
      [":status"] = "200",
      ["content-type"] = "application/grpc",
      ["grpc-status"] = tostring(status.grpc),
      ["grpc-message"] = percent(refusal.message),
    }, "")
    return
  end
  local headers = { [":status"] = tostring(status.http), ["content-type"] = "application/json" }
  if status.http == 401 then headers["www-authenticate"] = "Bearer" end
  handle:respond(headers, '{"error": "' .. quoted(refusal.message) .. '"}\n')
end
