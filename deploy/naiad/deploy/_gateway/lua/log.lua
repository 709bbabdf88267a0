-- What the access log and the routes read.

local function note(handle, key, value)
  handle:streamInfo():dynamicMetadata():set("naiad", key, value)
end
