-- Who calls: an API key, a token that the filter before has verified, or a client certificate. Every credential that is
-- there must be good, and all must say the same; a bad one never becomes "anonymous".

local KEY_HEADERS = { "x-api-key", "triton-grpc-protocol-admin-key" }
local MAX_KEY = 512

local function by_key(key, now_s)
  local entry = #key <= MAX_KEY and key_entry(key)
  if not entry then
    refuse("unauthenticated", "unknown-key", "no identity has this key; ask the service's operator for one")
  end
  if now_s >= entry.expires_s then
    refuse("unauthenticated", "expired-key", "this key of " .. entry.identity .. " has expired; use the newer one")
  end
  if not CONFIG.identities[entry.identity] then
    refuse("unauthenticated", "unknown-key", "the key's identity is not part of this service")
  end
  return entry.identity
end

local function token_failure(verified, issuer)
  local failure = verified[issuer.name .. "#failure"]
  local text = type(failure) == "table" and failure.message or ""
  return string.find(text, "expired") and "expired-token" or nil
end

local function by_token(handle)
  local verified = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn") or {}
  local reason = "bad-token"
  for _, issuer in ipairs(CONFIG.issuers) do
    local payload = verified[issuer.name]
    if type(payload) == "table" then
      local subject = payload[issuer.claim]
      local identity = type(subject) == "string" and CONFIG.tokens[issuer.name .. "/" .. subject]
      if identity then return identity end
      refuse("unauthenticated", "unknown-token", "no identity has this token's " .. issuer.claim)
    end
    reason = token_failure(verified, issuer) or reason
  end
  local said = reason == "expired-token" and "has expired" or "is not one that this service believes"
  refuse("unauthenticated", reason, "the token " .. said)
end

local function by_certificate(handle)
  if not next(CONFIG.certificates) then return nil end
  local tls = handle:streamInfo():downstreamSslConnection()
  if not tls or not tls:peerCertificateValidated() then return nil end
  local found
  for _, names in ipairs({ tls:uriSanPeerCertificate() or {}, tls:dnsSansPeerCertificate() or {} }) do
    for _, name in ipairs(names) do
      local identity = CONFIG.certificates[name]
      if identity and found and found ~= identity then
        refuse("unauthenticated", "contradicting", "the certificate is that of two identities")
      end
      found = identity or found
    end
  end
  return found
end

local function agree(known, found)
  if known and found and known ~= found then
    refuse("unauthenticated", "contradicting", "the request's credentials are of different identities")
  end
  return found or known
end

local function by_authorization(handle, value, now_s)
  local token = string.match(value, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w%-%._~%+/=]+)$")
  if not token then
    refuse("unauthenticated", "bad-credential", "expected one 'authorization: Bearer <key or token>'")
  end
  if string.find(token, "^[^%.]*%.[^%.]*%.[^%.]*$") then return by_token(handle) end
  return by_key(token, now_s)
end

-- The name, and whether it was proved (false for anonymous).
local function identify(handle, headers)
  local now_s = refresh(handle)
  local identity
  local authorization = headers:get("authorization")
  if authorization then identity = by_authorization(handle, authorization, now_s) end
  for _, name in ipairs(KEY_HEADERS) do
    local key = headers:get(name)
    if key then identity = agree(identity, by_key(key, now_s)) end
  end
  identity = agree(identity, by_certificate(handle))
  if identity then return identity, CONFIG.identities[identity] end
  if CONFIG.anonymous then return "anonymous", CONFIG.anonymous end
  refuse("unauthenticated", "no-credential", "expected an API key in 'x-api-key' or 'authorization: Bearer', found none")
end
