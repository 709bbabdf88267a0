"""JSON Web Tokens: signature, issuer, audience and times are checked here; who that is, `authorize.lua` decides."""

from naiad.deploy._gateway._document import Message
from naiad.deploy.place import Place
from naiad.deploy.service import Issuer, Service


def verify_tokens(service: Service, place: Place) -> Message:
    """The fields of a JwtAuthentication.

    A token that fails is refused later, by the one filter that answers and logs refusals: here it leaves no payload.
    """
    if not service.issuers:
        return {}
    names: list[Message] = [{"provider_name": issuer.name} for issuer in service.issuers]
    requirement = {"requires_any": {"requirements": [*names, {"allow_missing_or_failed": {}}]}}
    return {
        "providers": {issuer.name: _provider(issuer, place) for issuer in service.issuers},
        "rules": [{"match": {"prefix": "/"}, "requires": requirement}],
    }


def _provider(issuer: Issuer, place: Place) -> Message:
    provider: Message = {
        "issuer": issuer.issuer,
        # Read when this file is: Envoy 1.40 does not watch it. A new key comes as an issuer of another name beside.
        "local_jwks": {"filename": f"{place.secrets_dir}/jwks/{issuer.name}.json"},
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "require_expiration": True,
        "clock_skew_seconds": 5,
        "payload_in_metadata": issuer.name,
        "failed_status_in_metadata": f"{issuer.name}#failure",
    }
    if issuer.audiences:
        provider["audiences"] = list(issuer.audiences)
    return provider
