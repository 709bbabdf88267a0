"""What is allowed in a description, and yet probably not meant."""

from __future__ import annotations

from collections.abc import Iterator

from naiad.deploy.service import Rights, Service

__all__ = ["advice"]


def advice(service: Service) -> tuple[str, ...]:
    """Return one sentence for each thing that is probably not meant: what it is, and what it leads to."""
    return (*_of_access(service), *_of_pools(service), *_of_objectives(service))


def _of_access(service: Service) -> Iterator[str]:
    if not service.identities and service.anonymous is None:
        yield "nobody may call: there are neither [[identities]] nor [anonymous]"
    if not service.tls:
        yield "tls = false: keys and tensors can be read on the network, unless something else in front has TLS"
    if service.anonymous is not None and service.anonymous.admin:
        yield "[anonymous] has admin = true: whoever reaches the gateway can load code of their own"
    for identity in service.identities:
        if identity.rights == Rights():
            yield f"{identity.name} may do nothing: it has no rights"
    for issuer in service.issuers:
        if not issuer.audiences:
            yield f"the issuer {issuer.name} has no audiences: its tokens for other services are believed, too"
        if not any(token.startswith(f"{issuer.name}/") for each in service.identities for token in each.tokens):
            yield f"no identity has a token of the issuer {issuer.name}"
    num_replicas = service.pools[0].num_replicas
    if service.triton.model_control == "explicit" and num_replicas > 1:
        yield f'triton.model_control = "explicit": who loads a model reaches one of the {num_replicas} replicas only'


def _of_pools(service: Service) -> Iterator[str]:
    used = {service.pools[0].name} | {each.pool for each in (service.canary, service.shadow) if each is not None}
    for pool in service.pools:
        if pool.name not in used:
            yield f"nothing goes to the pool {pool.name}: neither canary nor shadow names it"
    if service.pools[0].num_replicas == 1:
        yield f"the pool {service.pools[0].name} has one replica: while it restarts, requests fail"


def _of_objectives(service: Service) -> Iterator[str]:
    patterns = [pattern for each in service.identities for pattern in each.rights.infer]
    patterns += service.anonymous.infer if service.anonymous is not None else ()
    for objective in service.objectives:
        if not any("*" in pattern or pattern == objective.model for pattern in patterns):
            yield f"the objective of {objective.model} is of a model that nobody may ask"
