-- SHA-256 (FIPS 180-4), because the filter has no cryptography of its own. Only the digest of an API key that has
-- not been seen since the last change of the file of keys is ever computed, so this need not be fast.

local bit = require("bit")
local band, bnot, bor, bxor = bit.band, bit.bnot, bit.bor, bit.bxor
local rol, rshift, lshift, tobit = bit.rol, bit.rshift, bit.lshift, bit.tobit

-- The first 32 bits of the fractional parts of a root of the first primes: the constants of the standard.
local function fractions(num, root)
  local found, candidate = {}, 2
  while #found < num do
    local prime = true
    for divisor = 2, math.floor(math.sqrt(candidate)) do
      if candidate % divisor == 0 then prime = false break end
    end
    if prime then
      local value = candidate ^ root
      found[#found + 1] = tobit(math.floor((value - math.floor(value)) * 4294967296))
    end
    candidate = candidate + 1
  end
  return found
end

local ROUNDS = fractions(64, 1 / 3)
local START = fractions(8, 1 / 2)

local function padded(text)
  local bits = #text * 8
  local zeros = string.rep("\0", (55 - #text) % 64)
  local size = string.char(0, 0, 0, 0, band(rshift(bits, 24), 255), band(rshift(bits, 16), 255),
    band(rshift(bits, 8), 255), band(bits, 255))
  return text .. "\128" .. zeros .. size
end

local function schedule(text, at)
  local w = {}
  for i = 0, 15 do
    local a, b, c, d = string.byte(text, at + i * 4, at + i * 4 + 3)
    w[i] = bor(lshift(a, 24), lshift(b, 16), lshift(c, 8), d)
  end
  for i = 16, 63 do
    local x, y = w[i - 15], w[i - 2]
    w[i] = tobit(w[i - 16] + bxor(rol(x, 25), rol(x, 14), rshift(x, 3))
      + w[i - 7] + bxor(rol(y, 15), rol(y, 13), rshift(y, 10)))
  end
  return w
end

local function compress(state, w)
  local a, b, c, d, e, f, g, h = unpack(state)
  for i = 0, 63 do
    local t1 = tobit(h + bxor(rol(e, 26), rol(e, 21), rol(e, 7)) + bxor(band(e, f), band(bnot(e), g))
      + ROUNDS[i + 1] + w[i])
    local t2 = tobit(bxor(rol(a, 30), rol(a, 19), rol(a, 10)) + bxor(band(a, b), band(a, c), band(b, c)))
    h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
  end
  for i, value in ipairs({ a, b, c, d, e, f, g, h }) do
    state[i] = tobit(state[i] + value)
  end
end

local function sha256(text)
  local state = { unpack(START) }
  local message = padded(text)
  for at = 1, #message, 64 do
    compress(state, schedule(message, at))
  end
  local words = {}
  for i = 1, 8 do
    words[i] = bit.tohex(state[i])
  end
  return table.concat(words)
end
