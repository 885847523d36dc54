"""Fixtures shared by all tests."""

import os
from pathlib import Path

# Before numpy or torch start their thread pools: spinning OpenMP threads turn a 0.3-s fit into 16 s on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of a test; and what fixtures hold, these tests only read.
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("busy")

pytest_plugins = ["tests.servers.fixtures"]
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real recordings beside the repository; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real test recordings (../shared/data) are not on this machine")
    return folder
