-- The HTTP paths of the KServe v2 protocol and Triton's extensions; all others do not exist.

local FIXED = {
  ["/v2"] = { GET = { right = "any" } },
  ["/v2/health/live"] = { GET = { right = "any" } },
  ["/v2/health/ready"] = { GET = { right = "any" } },
  ["/v2/models/stats"] = { GET = { right = "observe_all", secret = true } },
  ["/v2/repository/index"] = { POST = { right = "observe_all", secret = true } },
  ["/v2/logging"] = { GET = { right = "admin", secret = true }, POST = { right = "admin", secret = true } },
  ["/v2/trace/setting"] = { GET = { right = "admin", secret = true }, POST = { right = "admin", secret = true } },
}

local OF_MODEL = {
  [""] = { GET = { right = "see" } },
  ["/ready"] = { GET = { right = "see" } },
  ["/config"] = { GET = { right = "see", secret = true } },
  ["/stats"] = { GET = { right = "observe", secret = true } },
  ["/infer"] = { POST = { right = "infer", infers = true } },
  ["/generate"] = { POST = { right = "infer" } },
  ["/generate_stream"] = { POST = { right = "infer" } },
  ["/trace/setting"] = { GET = { right = "admin", secret = true }, POST = { right = "admin", secret = true } },
}

local LOADS = {
  load = { POST = { right = "admin", loads = true, secret = true } },
  unload = { POST = { right = "admin", secret = true } },
}

local STATUS = { GET = { right = "admin", secret = true } }
local CHANGE = { POST = { right = "admin", secret = true } }

local function shared_memory(rest)
  local action = string.match(rest, "^/region/[%w_][%w_%.%-]*(/%l+)$") or rest
  if action == "/status" then return STATUS end
  if action == "/unregister" or (action == "/register" and rest ~= action) then return CHANGE end
end

-- The methods of a path, the model and the version in it.
local function find_path(path)
  if FIXED[path] then return FIXED[path] end
  local model, rest = string.match(path, "^/v2/models/([%w_][%w_%.%-]*)(.*)$")
  if model then
    local version, after = string.match(rest, "^/versions/(%d+)(.*)$")
    return OF_MODEL[after or rest], model, version
  end
  local action
  model, action = string.match(path, "^/v2/repository/models/([%w_][%w_%.%-]*)/(%l+)$")
  if model then return LOADS[action], model end
  rest = string.match(path, "^/v2/systemsharedmemory(/.*)$") or string.match(path, "^/v2/cudasharedmemory(/.*)$")
  return rest and shared_memory(rest)
end

local function find_http(path, verb)
  local methods, model, version = find_path(path)
  if not methods then refuse("unknown", "no-such-path", "there is no such path") end
  local method = methods[verb]
  if not method then refuse("method", "wrong-method", "this path does not know the method " .. verb) end
  return method, model and check_model(model), check_version(version or "")
end

local function is_escaped(text, at)
  local first = at
  while string.byte(text, first - 1) == 92 do first = first - 1 end
  return (at - first) % 2 == 1
end

-- Whether the text escapes a letter that needs no escape: nobody's encoder does, and it would hide a key. In linear
-- time: one pattern for all of this would take minutes for a megabyte of backslashes.
local function hides_letters(text)
  local at = string.find(text, "\\u00", 1, true)
  while at do
    local digits = string.sub(text, at + 4, at + 5)
    if (string.find(digits, "^[67]%x") or string.find(digits, "^5[fF]")) and not is_escaped(text, at) then return true end
    at = string.find(text, "\\u00", at + 5, true)
  end
  return false
end

local PIECE = 65536
local OVERLAP = 64

-- Looks through the first `size` bytes of the JSON; a piece at a time, so that a large one is never copied whole.
local function forbid_in_json(body, size, forbidden, reason, message)
  local at = 0
  while at < size do
    local text = body:getBytes(at, math.min(PIECE + OVERLAP, size - at))
    if string.find(text, forbidden, 1, true) then refuse("denied", reason, message) end
    if hides_letters(text) then refuse("invalid", "escaped", "letters are escaped in the JSON; write them plainly") end
    at = at + PIECE
  end
end

-- Triton 2.51 puts the JSON on its stack and dies of 4 MiB; sent again, the same body would end every replica.
local MAX_JSON = 2 * 1024 * 1024

-- With the binary tensor extension only the first bytes are JSON.
local function json_size(headers, size)
  local given = headers:get("inference-header-content-length")
  if not given then return size end
  if #given > 12 or not string.find(given, "^%d+$") or tonumber(given) > size then
    refuse("invalid", "malformed", "inference-header-content-length is not a length within the body")
  end
  return tonumber(given)
end

local function check_http_body(call, method, headers, body, size)
  if json_size(headers, size) > MAX_JSON then
    refuse("large", "json-too-large", "at most 2 MiB of a body are JSON; use the binary tensor extension, or gRPC")
  end
  if method.infers and not call.rights.admin then
    forbid_in_json(body, json_size(headers, size), '"shared_memory_region"', "shared-memory",
      "only administrators may use shared memory through the gateway")
  elseif method.loads then
    forbid_in_json(body, size, '"file:', "model-file", "a model's files come from its repository, not from a request")
  end
end
