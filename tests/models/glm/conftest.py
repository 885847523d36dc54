"""A network every test of the coupled GLM may fit."""

import numpy as np
import pytest

from pipeline_lib.models.contract import FitData
from tests.models.glm.networks import Network, simulate_network
from tests.models.glm.sessions import BLOCKS, CONTINUOUS, cohort


@pytest.fixture(scope="session")
def network() -> Network:
    return simulate_network(units=8, bins=12_000, seed=0)


@pytest.fixture(scope="session")
def network_counts() -> np.ndarray:
    return simulate_network(units=10, bins=15_000, seed=3).counts


@pytest.fixture(scope="session")
def continuous(tmp_path_factory, network_counts) -> tuple[FitData, FitData]:
    return cohort(tmp_path_factory.mktemp("continuous"), network_counts, CONTINUOUS, BLOCKS)
