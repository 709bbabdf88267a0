"""How an answer tells that the Python process of a model has died, so that another replica is asked.

A model's own error looks alike (INTERNAL, 500) and is not tried again: it would fail as often as it is computed.
"""

from naiad.deploy._gateway._document import Message, typed

DEAD_STUB = "is not healthy"
"""Part of what Triton answers then; by gRPC it is in the header `grpc-message`."""
MARK = "x-naiad-dead-stub"
"""The header that answers by HTTP get, where only the body says it; not for callers."""

_LONGEST_START = 400
_SCRIPT = f"""\
function envoy_on_response(handle)
  if handle:headers():get(":status") ~= "500" then return end
  local body = handle:body(true)
  local start = body:getBytes(0, math.min(body:length(), {_LONGEST_START}))
  if start:find("Stub process '[^']*' {DEAD_STUB}") then handle:headers():add("{MARK}", "1") end
end
"""


def http_filters() -> list[Message]:
    """What looks at each answer of a replica by HTTP, before it is decided whether to ask another."""
    lua = typed("envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": _SCRIPT})
    codec = typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")
    return [
        {"name": "envoy.filters.http.lua", "typed_config": lua},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]
