"""A results tree to draw from, made once."""

import pytest

from tests.figures.golden import three_sessions
from tests.figures.made_up_results import Results, write_results


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Windows cut around trials."""
    return write_results(tmp_path_factory.mktemp("trials"))


@pytest.fixture(scope="session")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Back-to-back windows of a longer session of more units."""
    return write_results(tmp_path_factory.mktemp("continuous"), mode="continuous", units=90, seed=3)


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three sessions of different size, of the first of which the paths are."""
    return three_sessions(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="session")
def around_event(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Windows that begin 0.2 s before the event they are aligned to."""
    return write_results(tmp_path_factory.mktemp("around_event"), before=0.2, units=16, trials=40)
