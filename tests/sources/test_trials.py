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
