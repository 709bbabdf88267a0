"""Options of the whole suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--triton",
        metavar="URL",
        help="run the client's tests against this server, which serves tests/client_models.py's repository, "
        "instead of starting one (grpc://:SECRET@host:port)",
    )
