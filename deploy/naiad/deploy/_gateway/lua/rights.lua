-- What an identity may do. An administrator sees everything, but asks for inferences only as its rights say.

-- Whether the name fits a pattern, given as the texts between its `*`. In linear time, which Lua's patterns are not.
local function fits(parts, name)
  local first, last = parts[1], parts[#parts]
  if string.sub(name, 1, #first) ~= first then return false end
  local at = #first + 1
  for i = 2, #parts - 1 do
    local _, stop = string.find(name, parts[i], at, true)
    if not stop then return false end
    at = stop + 1
  end
  local rest = #name - #last + 1
  return rest >= at and string.sub(name, rest) == last
end

local function matches(models, model)
  if models.all or models.names[model] then return true end
  for _, parts in ipairs(models.patterns) do
    if fits(parts, model) then return true end
  end
  return false
end

local RIGHTS = {
  any = function() return true end,
  admin = function(rights) return rights.admin end,
  infer = function(rights, model) return matches(rights.infer, model) end,
  see = function(rights, model)
    return rights.admin or matches(rights.infer, model) or matches(rights.observe, model)
  end,
  observe = function(rights, model) return rights.admin or matches(rights.observe, model) end,
  observe_all = function(rights) return rights.admin or rights.observe.all end,
}

local DOING = {
  admin = "administer this service",
  infer = "ask for inferences of",
  see = "see",
  observe = "observe",
  observe_all = "observe every model",
}

local function require_right(call, right, model)
  if RIGHTS[right](call.rights, model) then return end
  local what = DOING[right] .. (model and (" the model " .. model) or "")
  refuse("denied", right == "admin" and "not-admin" or "no-right", call.identity .. " may not " .. what)
end

local function check_model(name)
  if #name == 0 then refuse("invalid", "no-model", "the request names no model") end
  if #name > 255 or not string.find(name, "^[%w_][%w_%.%-]*$") then
    refuse("invalid", "model-name", "a model's name has letters, digits, '_', '.' and '-' only")
  end
  return name
end

local function check_version(version)
  if #version > 18 or not string.find(version, "^%d*$") then
    refuse("invalid", "model-version", "a model's version is a number")
  end
  return version
end
