"""A network every test of the coupled GLM may fit."""

import pytest

from tests.models.glm.networks import Network, simulate_network


@pytest.fixture(scope="session")
def network() -> Network:
    return simulate_network(units=8, bins=12_000, seed=0)
