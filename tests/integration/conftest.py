"""What tests against a whole station have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sealift.client.api import Operator, Profile, connect
from sealift.sim.station import Station


@pytest.fixture
def operator(station: Station) -> Iterator[Operator]:
    """An operator of the station's server, over its API."""
    server = station.server
    url = f"https://localhost:{server.operator_port}"
    ca = server.directory / "public/tls-ca.pem"
    with connect(Profile(url, ca, server.token.read_text().strip())) as session:
        yield Operator(session)
