"""What figures read of a fit, and what they say of a fit that lacks it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import Fit, first_with
from tests.figures.made_up_results import Results


def test_a_table_is_that_of_the_session(tmp_path: Path) -> None:
    directory = tmp_path / "cohort" / "glm" / "seed1"
    (directory / "tables").mkdir(parents=True)
    table = pd.DataFrame({"session": ["a", "b", "b"], "value": [1, 2, 3]})
    table.to_parquet(directory / "tables" / "gains.parquet")
    fit = Fit.at(directory)
    assert fit.has_table("gains") and not fit.has_table("losses")
    pd.testing.assert_frame_equal(fit.table("gains", "b"), pd.DataFrame({"value": [2, 3]}))
    assert first_with([directory], "gains", "no gains") == fit
    with pytest.raises(NothingToDrawError, match="no losses"):
        first_with([directory], "losses", "no losses")
    with pytest.raises(InputError, match="losses"):
        fit.table("losses", "b")


def test_extras_are_asked_for_by_name(trials: Results) -> None:
    fit = Fit.at(trials.fits[0])
    session = Path(trials.recording).name
    assert fit.extras(session) == []
    with pytest.raises(InputError, match="no gains"):
        fit.extra(session, "gains", np.arange(1))
