"""Services that differ in every part of the gateway's configuration."""

from naiad.deploy.place import Endpoint, Place
from naiad.deploy.service import (
    Canary,
    Identity,
    Issuer,
    Limits,
    Pool,
    Rights,
    Service,
    Shadow,
)

POOLS = (Pool(name="main", num_replicas=2), Pool(name="next"), Pool(name="dark"))
SERVICES: dict[str, Service] = {
    "default": Service(),
    "plaintext": Service(tls=False, anonymous=Rights(infer=("*",))),
    "optional-certificates": Service(
        client_certificates="optional",
        identities=(Identity(name="vision", rights=Rights(infer=("resnet*",)), certificates=("spiffe://vision",)),),
    ),
    "required-certificates": Service(client_certificates="required", revocations=True),
    "tokens": Service(
        issuers=(Issuer(name="corp", issuer="https://issuer.example", audiences=("naiad",)),),
        identities=(Identity(name="web", tokens=("corp/web",), requests_per_s=0.5, burst=3, request_mb=1),),
    ),
    "canary": Service(pools=POOLS, canary=Canary(pool="next", weight_percent=12.34)),
    "canary-of-models": Service(
        pools=POOLS, canary=Canary(pool="next", weight_percent=100, models=("resnet*", "v1.bert"), header="x-try")
    ),
    "shadow": Service(pools=POOLS, shadow=Shadow(pool="dark", percent=0.01)),
    "both": Service(
        pools=POOLS,
        canary=Canary(pool="next", weight_percent=5, models=("a*",)),
        shadow=Shadow(pool="dark", models=("b*", "c")),
    ),
    "narrow": Service(
        limits=Limits(
            request_mb=0.001,
            response_timeout_s=0.25,
            stream_idle_timeout_s=1,
            num_connections=1,
            num_concurrent_streams=1,
            header_kb=1,
            header_timeout_s=0.5,
            num_pending=1,
            memory_mb=128,
        )
    ),
    "wide": Service(limits=Limits(request_mb=2047, response_timeout_s=86_400, num_pending=1_000_000, header_kb=8192)),
    "many-models": Service(
        pools=POOLS, canary=Canary(pool="next", weight_percent=1, models=tuple(f"a*model-{i}*x" for i in range(300)))
    ),
}


def make_place(service: Service, *, host: str = "127.0.0.1", collector: tuple[str, int] | None = None) -> Place:
    """Two replicas of the first pool, one of the others; the second is taken out."""
    endpoints = {
        pool.name: tuple(
            Endpoint(name=f"{pool.name}-{number}", host=host, admitted=number != 1)
            for number in range(pool.num_replicas)
        )
        for pool in service.pools
    }
    return Place(
        config_dir="/config",
        secrets_dir="/secrets",
        endpoints=endpoints,
        host="127.0.0.1",
        metrics_host="127.0.0.1",
        collector=collector,
    )
