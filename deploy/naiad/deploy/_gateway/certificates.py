"""`certificates.yaml` and `clients.yaml`: the gateway's certificate, and whose certificates it believes.

Envoy watches the directory and reads them anew when something in it is renamed: a rotation needs no restart, and
connections that stand keep the certificate that they began with.
"""

from naiad.deploy._gateway._document import Message, from_file, resources, typed
from naiad.deploy.place import Place
from naiad.deploy.service import Service

_FILE_TYPE = "envoy.extensions.transport_sockets.tls.v3.Secret"


def render_certificates(service: Service, place: Place) -> dict[str, str]:
    """Return the files that the service needs: none without TLS."""
    files = {}
    if service.tls:
        files["certificates.yaml"] = resources([_own(place)])
        if service.client_certificates != "none":
            files["clients.yaml"] = resources([_clients(service, place)])
    return files


def transport_socket(service: Service, place: Place) -> Message:
    """TLS from 1.2 on, for gRPC and HTTP/1.1."""
    common: Message = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [
            {"name": "certificate", "sds_config": from_file(place.config_dir, "certificates.yaml")}
        ],
    }
    if service.client_certificates != "none":
        source = from_file(place.config_dir, "clients.yaml")
        common["validation_context_sds_secret_config"] = {"name": "clients", "sds_config": source}
    context = typed(
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=common,
        require_client_certificate=service.client_certificates == "required",
        **_sessions(service),
    )
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _sessions(service: Service) -> Message:
    """A resumed session would not have its certificate checked again, and Envoy would not call it validated."""
    whole = service.client_certificates != "none"
    return {"disable_stateless_session_resumption": whole, "disable_stateful_session_resumption": whole}


def _own(place: Place) -> Message:
    certificate = {
        "certificate_chain": {"filename": f"{place.secrets_dir}/tls.crt"},
        "private_key": {"filename": f"{place.secrets_dir}/tls.key"},
        "watched_directory": {"path": place.secrets_dir},
    }
    return typed(_FILE_TYPE, name="certificate", tls_certificate=certificate)


def _clients(service: Service, place: Place) -> Message:
    context: Message = {
        "trusted_ca": {"filename": f"{place.secrets_dir}/clients.crt"},
        "watched_directory": {"path": place.secrets_dir},
    }
    if service.revocations:
        context["crl"] = {"filename": f"{place.secrets_dir}/clients.crl"}
        context["only_verify_leaf_cert_crl"] = True
    return typed(_FILE_TYPE, name="clients", validation_context=context)
