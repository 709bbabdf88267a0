-- Every request passes here: who calls, what for, whether it may. Nothing reaches a server that was not allowed.

-- What only the gateway may say to a server, and what no server needs to know.
local OURS = {
  "x-naiad-identity", "x-naiad-model", "admin-key", "triton-grpc-protocol-admin-key", "authorization", "x-api-key",
}

local function strip(headers)
  for _, name in ipairs(OURS) do headers:remove(name) end
end

local function find_method(call, headers)
  local path, verb = headers:get(":path") or "", headers:get(":method") or ""
  if #path > 2048 or not string.find(path, "^/[%w_%.%-/]*$") then
    refuse("invalid", "bad-path", "a path has letters, digits, '_', '.', '-' and '/' only")
  end
  local method = METHODS[path]
  if method then
    if not call.grpc then refuse("encoding", "not-grpc", "expected the content type application/grpc") end
    if verb ~= "POST" then refuse("method", "wrong-method", "gRPC calls are POST requests") end
    return method
  end
  if call.grpc then refuse("unknown", "no-such-method", "there is no such method") end
  local encoding = headers:get("content-encoding")
  if encoding and encoding ~= "identity" then
    refuse("encoding", "compressed", "compressed bodies are not accepted; send them as they are")
  end
  method, call.model, call.version = find_http(path, verb)
  return method
end

local function check_size(call, size)
  if size > call.max_bytes then
    refuse("large", "too-large", "the body has " .. size .. " bytes; " .. call.max_bytes .. " are allowed")
  end
end

local function check_announced_size(call, headers)
  local announced = tonumber(headers:get("content-length") or "0")
  if announced then check_size(call, announced) end
end

local function check_body(call, method, handle, headers)
  local body = handle:body(true)
  local size = body:length()
  check_size(call, size)
  if not call.grpc then
    check_http_body(call, method, handle:headers(), body, size) -- what was read before the body came is gone
  elseif method.model then
    call.model, call.version = check_grpc_body(call, method, body, size)
  end
end

local function let_pass(call, method, handle)
  local headers = handle:headers()
  if call.model and call.model ~= "" then
    headers:replace("x-naiad-model", call.model)
    note(handle, "model", call.model)
  end
  if call.version and call.version ~= "" then note(handle, "version", call.version) end
  if method.secret and secrets.triton then
    headers:replace(call.grpc and "triton-grpc-protocol-admin-key" or "admin-key", secrets.triton)
  end
  note(handle, "allowed", "yes")
  handle:clearRouteCache()
end

local function check_rights_of_path(call, method)
  if call.grpc and method.model then
    return method.right == "admin" and require_right(call, "admin")
  end
  require_right(call, method.right, method.right ~= "admin" and call.model or nil)
end

local function decide(handle, call)
  local headers = handle:headers()
  local content_type = headers:get("content-type") or ""
  -- Exactly as Envoy's routes tell gRPC.
  call.grpc = content_type == "application/grpc" or string.find(content_type, "^application/grpc%+") ~= nil
  call.identity, call.rights = identify(handle, headers)
  strip(headers)
  headers:replace("x-naiad-identity", call.identity)
  note(handle, "identity", call.identity)
  local method = find_method(call, headers)
  note(handle, "right", method.right)
  call.max_bytes = call.rights.max_bytes
  check_rights_of_path(call, method)
  check_announced_size(call, headers)
  if method.stream then
    let_pass(call, method, handle)
    return new_stream(call, method)
  end
  check_body(call, method, handle, headers)
  let_pass(call, method, handle)
end

local function fault(handle, problem)
  handle:logErr("naiad: " .. tostring(problem))
  return { kind = "fault", reason = "fault", message = "the gateway failed; its log says why" }
end

function envoy_on_request(handle)
  local call = {}
  local ok, result = pcall(decide, handle, call)
  if ok then
    if result then guard_stream(handle, result) end
    return
  end
  local refusal = type(result) == "table" and result or fault(handle, result)
  pcall(note, handle, "denied", refusal.reason)
  if call.model and call.model ~= "" then pcall(note, handle, "model", call.model) end
  if not pcall(answer, handle, call, refusal) then
    handle:respond({ [":status"] = "500" }, "")
  end
end
