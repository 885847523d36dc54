"""A results tree to draw from, made once."""

import pytest

from tests.figures.made_up_results import Results, write_results


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Windows cut around trials."""
    return write_results(tmp_path_factory.mktemp("trials"))


@pytest.fixture(scope="session")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Back-to-back windows of a longer session of more units."""
    return write_results(tmp_path_factory.mktemp("continuous"), mode="continuous", units=90, seed=3)
