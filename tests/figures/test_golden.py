"""The numbers behind the small figures, as they were when somebody last looked at them."""

import io

import pandas as pd
import pytest

from tests.figures.golden import FOLDER, NAMES, golden_table
from tests.figures.made_up_results import Results


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_behind_a_figure_are_as_they_were(name: str, several: Results) -> None:
    text = golden_table(name, several).to_csv(index=False, float_format="%.6g")
    found, expected = pd.read_csv(io.StringIO(text)), pd.read_csv(FOLDER / f"{name}.csv")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)
