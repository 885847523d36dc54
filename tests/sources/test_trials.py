"""The trials table: text is text, however few rows it has."""

import numpy as np
import pandas as pd

from pipeline_lib.sources.trials import no_trials, trial_table


def test_text_is_text_without_a_row() -> None:
    some, _ = trial_table(np.zeros(1), np.ones(1), ["left"], pd.DataFrame({"stimulus": ["dots"], "contrast": [0.5]}))
    none, _ = trial_table(np.empty(0), np.empty(0), [], pd.DataFrame({"stimulus": [], "contrast": []}, dtype=object))
    assert none.dtypes[["start", "stop", "condition", "stimulus"]].equals(
        some.dtypes[["start", "stop", "condition", "stimulus"]]
    )
    assert no_trials().dtypes.astype(str).tolist() == ["float64", "float64", "str"]


def test_a_trial_without_an_end_is_left_out_with_its_columns() -> None:
    columns = pd.DataFrame({"reward": [1, 2, 3]}, index=[7, 8, 9])
    trials, counts = trial_table(np.array([2.0, 1.0, 0.0]), np.array([3.0, np.nan, 1.0]), ["a", "b", "c"], columns)
    assert trials[["start", "condition", "reward"]].to_numpy().tolist() == [[0.0, "c", 3], [2.0, "a", 1]]
    assert counts == {"trials_before": 3, "trials_without_times": 1}
