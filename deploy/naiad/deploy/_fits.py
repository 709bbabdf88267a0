"""Whether the parts of a description fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naiad.deploy._checks import check_unique, wrong

if TYPE_CHECKING:
    from naiad.deploy.service import Identity, Service

__all__ = ["check_fits"]


def check_fits(service: Service) -> None:
    """Refuse a service that names what it does not have, or names two things alike.

    Raises:
        InvalidService: with the key of the part that does not fit.
    """
    _check_pools(service)
    check_unique((issuer.name for issuer in service.issuers), "a name of its own", "issuers", last="name")
    check_unique((each.model for each in service.objectives), "one objective a model", "objectives", last="model")
    if service.client_certificates != "none" and not service.tls:
        do = "set tls = true, or leave it out"
        raise wrong('"none" without TLS', service.client_certificates, "client_certificates", do=do)
    if service.revocations and service.client_certificates == "none":
        do = 'set client_certificates = "optional" or "required", or leave it out'
        raise wrong("false where no client certificates are read", service.revocations, "revocations", do=do)
    check_unique((identity.name for identity in service.identities), "a name of its own", "identities", last="name")
    for number, identity in enumerate(service.identities):
        _check_identity(service, identity, number)
    _check_told_apart(service)


def _check_pools(service: Service) -> None:
    if not service.pools:
        raise wrong("at least one pool", [], "pools", do="write [[pools]] with a name and num_replicas")
    names = [pool.name for pool in service.pools]
    check_unique(names, "a name of its own", "pools", last="name")
    for key, user in (("canary", service.canary), ("shadow", service.shadow)):
        if user is not None and user.pool not in names[1:]:
            others = " or ".join(names[1:]) or "another pool than the first: write a second [[pools]]"
            raise wrong(others, user.pool, key, "pool", do=f"the first, {names[0]}, is where traffic goes anyway")


def _check_identity(service: Service, identity: Identity, number: int) -> None:
    place = ("identities", number)
    if identity.request_mb is not None and identity.request_mb > service.limits.request_mb:
        do = "raise limits.request_mb as well, or leave it out"
        raise wrong(
            f"at most limits.request_mb, {service.limits.request_mb:g}",
            identity.request_mb,
            *place,
            "request_mb",
            do=do,
        )
    if identity.certificates and service.client_certificates == "none":
        do = 'set client_certificates = "optional" or "required"'
        raise wrong(
            "none where no client certificates are read", list(identity.certificates), *place, "certificates", do=do
        )
    issuers = [issuer.name for issuer in service.issuers]
    for at, token in enumerate(identity.tokens):
        if token.partition("/")[0] not in issuers:
            known = " or ".join(issuers) or "none of [[issuers]]"
            raise wrong(f"issuer-name/subject with the issuer {known}", token, *place, "tokens", at)


def _check_told_apart(service: Service) -> None:
    """One certificate or token is one identity."""
    for key in ("certificates", "tokens"):
        owners: dict[str, str] = {}
        for number, identity in enumerate(service.identities):
            for at, value in enumerate(getattr(identity, key)):
                if value in owners:
                    do = f"{owners[value]} has it as well"
                    raise wrong("what no other identity has", value, "identities", number, key, at, do=do)
                owners[value] = identity.name
