"""Signatures in a repository: made after or with the publication, and required where the user says so."""

import logging

from naiad.export._repository import manifest as _manifest
from naiad.export._repository import reading as _reading
from naiad.export._repository import serving as _serving
from naiad.export._repository import signature as _signature
from naiad.export._repository.store import Store
from naiad.export.errors import CorruptVersion, InvalidModel

_logger = logging.getLogger("naiad.export")


def sign(store: Store, model: str, number: int, signer: _signature.Signer, *, reason: str = "") -> None:
    """Add this key's signature to a version whose files are what its manifest says."""
    integrity = _reading.verify(store, model, number)
    name = f"{model}/{number}/{_manifest.FILE}"
    data = store.read(name)
    if data is None:
        raise InvalidModel(
            f"{model} version {number} has no {_manifest.FILE} to sign: it was not published by naiad export",
            repository=store.location,
            model=model,
            version=number,
        )
    if integrity.problems:
        raise CorruptVersion(
            f"{model} version {number} is not signed, because it is not what was published: "
            f"{'; '.join(integrity.problems)}",
            repository=store.location,
            model=model,
            version=number,
            problems=integrity.problems,
        )
    with store.stage() as stage, store.locked():
        _reading.require_version(store, model, number)  # nobody pruned it meanwhile
        signatures = _reading.signatures(store, model, number) | {signer.key_id: signer.sign(data)}
        signatures.pop(_signature.UNREADABLE, None)
        store.add_file(f"{model}/{number}/{_manifest.SIGNATURE}", _signature.to_json(signatures), stage)
        served = _reading.served(store, model)
        _serving.record(
            store, "sign", model, version=number, before=served, after=served, key=signer.key_id, reason=reason
        )
    _logger.info("signed %s version %d with the key %s", model, number, signer.key_id)
