"""Identity, rights and limits: the filters that look at a request before it is routed.

    tokens.yaml       verifies JSON Web Tokens, refuses nothing (jwt_authn)
    authorize.yaml    who calls, what for, whether it may: refuses (Lua, the files in `lua/`)
    limits.yaml       requests per second of each identity (local_ratelimit)

All three are always there, so that a change of the description replaces files and never the listener.
"""

from naiad.deploy._gateway._document import Message, discovered, resources, typed
from naiad.deploy._gateway.lua import script
from naiad.deploy._gateway.rate_limits import rate_limit
from naiad.deploy._gateway.tokens import verify_tokens
from naiad.deploy.place import Place
from naiad.deploy.service import Service

__all__ = ["allowed", "filters", "render_identity"]

_EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"
_LUA = "envoy.extensions.filters.http.lua.v3.Lua"
_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_RATE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


def render_identity(service: Service, place: Place) -> dict[str, str]:
    """Return `tokens.yaml`, `authorize.yaml` and `limits.yaml`."""
    lua = typed(_LUA, default_source_code={"inline_string": script(service, place)})
    return {
        "tokens.yaml": _extension("tokens", typed(_JWT, **verify_tokens(service, place))),
        "authorize.yaml": _extension("authorize", lua),
        "limits.yaml": _extension("limits", typed(_RATE, **rate_limit(service))),
    }


def filters(service: Service, place: Place) -> list[Message]:
    """Return the HTTP filters, in order; their configurations are the files of `render_identity` (ECDS)."""
    return [
        discovered("tokens", place.config_dir, _JWT),
        discovered("authorize", place.config_dir, _LUA),
        discovered("limits", place.config_dir, _RATE),
    ]


def allowed() -> list[Message]:
    """What a route must match besides (`dynamic_metadata`), so that a request which was not decided has no route.

    Callers cannot set it, as they could a header, and only the last act of `authorize.lua` does.
    """
    return [{"filter": "naiad", "path": [{"key": "allowed"}], "value": {"string_match": {"exact": "yes"}}}]


def _extension(name: str, config: Message) -> str:
    return resources([typed(_EXTENSION, name=name, typed_config=config)])
