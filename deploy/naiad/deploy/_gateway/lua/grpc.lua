-- The gRPC methods of the KServe v2 protocol and Triton's extensions; all others do not exist.
-- model, version: numbers of the fields with the names. secret: Triton itself asks for its secret.

local SERVICE = "/inference.GRPCInferenceService/"

local METHODS = {
  ["/grpc.health.v1.Health/Check"] = { right = "any" },
  [SERVICE .. "ServerLive"] = { right = "any" },
  [SERVICE .. "ServerReady"] = { right = "any" },
  [SERVICE .. "ServerMetadata"] = { right = "any" },
  [SERVICE .. "ModelReady"] = { right = "see", model = 1, version = 2 },
  [SERVICE .. "ModelMetadata"] = { right = "see", model = 1, version = 2 },
  [SERVICE .. "ModelConfig"] = { right = "see", model = 1, version = 2, secret = true },
  [SERVICE .. "ModelStatistics"] = { right = "observe", model = 1, version = 2, all = "observe_all", secret = true },
  [SERVICE .. "ModelInfer"] = { right = "infer", model = 1, version = 2, infers = true },
  [SERVICE .. "ModelStreamInfer"] = { right = "infer", model = 1, version = 2, infers = true, stream = true },
  [SERVICE .. "RepositoryIndex"] = { right = "observe_all", secret = true },
  [SERVICE .. "RepositoryModelLoad"] = { right = "admin", model = 2, loads = true, secret = true },
  [SERVICE .. "RepositoryModelUnload"] = { right = "admin", model = 2, secret = true },
}
for _, name in ipairs({
  "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
  "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
  "TraceSetting", "LogSettings",
}) do
  METHODS[SERVICE .. name] = { right = "admin", secret = true }
end

-- The size of the message whose frame starts at the text's `at` (from 1).
local function frame_size(text, at)
  local flag, a, b, c, d = string.byte(text, at, at + 4)
  if flag == 1 then refuse("invalid", "compressed", "compressed messages are not accepted; send them as they are") end
  if flag ~= 0 then refuse("invalid", "malformed", "the message's frame is malformed") end
  return ((a * 256 + b) * 256 + c) * 256 + d
end

local function check_named(call, method, found)
  local model = found.model or ""
  if model == "" and method.all then
    require_right(call, method.all)
    return "", ""
  end
  call.model = check_model(model)
  require_right(call, method.right, model)
  return model, check_version(found.version or "")
end

-- One frame, and nothing after it.
local function check_grpc_body(call, method, body, size)
  if size < 5 then refuse("invalid", "malformed", "expected one message, found none") end
  if frame_size(body:getBytes(0, 5), 1) ~= size - 5 then
    refuse("invalid", "malformed", "expected one whole message, found less or more")
  end
  local r = reader(body, size)
  return check_named(call, method, read_message(r, 5, size, method, call.rights.admin))
end
