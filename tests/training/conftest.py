"""Two sessions that the tests of the engine train on; a module may have others of its own."""

import pytest

from pipeline_lib.models.contract import FitData
from tests.small_cohort import Cohort, open_cohort, recording, write_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Two sessions of different size, whose training windows make batches of two sizes."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=24)]
    return write_cohort(tmp_path_factory.mktemp("cohort"), made=made)


@pytest.fixture
def data(cohort: Cohort) -> FitData:
    return open_cohort(*cohort, fitting=True)
