"""A small session with a known content, and the check that bad input ends in one readable line."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.recording import Provenance, Recording, Truth

REGIONS = ("VISp", "VISl", "CA1")


@pytest.fixture
def recording() -> Recording:
    """Six units in three regions, five trials of 0.8 s separated by 0.2 s nobody recorded, with truth."""
    rng = np.random.default_rng(5)
    units, trials = 6, 5
    starts = np.arange(trials) * 1.0
    trial = np.repeat(np.arange(trials), 40)
    tick = rng.integers(0, 80_000, len(trial)) + 100_000 * trial
    unit = rng.integers(0, units, len(trial))
    order = np.lexsort((unit, tick))
    ids = [str(number) for number in (11, 3, 7, 20, 8, 100)]
    regions = [REGIONS[row % 3] for row in range(units)]
    table = pd.DataFrame({"start": starts, "stop": starts + 0.8, "condition": [f"c{row % 2}" for row in range(trials)]})
    table["go_cue"] = table["start"] + 0.1 + 0.01 * np.arange(trials)
    table.loc[2, "go_cue"] = np.nan
    coupling = rng.standard_normal((units, units)).astype(np.float32)
    rates = rng.random((trials, 8, units)).astype(np.float32)
    return Recording(
        session="small session",
        spike_times=tick[order] / 100_000,
        spike_units=unit[order].astype(np.int32),
        units=pd.DataFrame({"unit_id": ids, "region": regions, "population": regions}),
        trials=table,
        duration=4.8,
        observed=table[["start", "stop"]].to_numpy(),
        provenance=Provenance("simulate", "small"),
        truth=Truth(
            {"coupling": coupling, "rates": rates}, {"unit_id": ids, "bin_size": 100, "trial_start": [*starts]}
        ),
    )


@contextmanager
def refuses(*words: str) -> Iterator[SimpleNamespace]:
    """The block must raise InputError whose one line holds every one of `words` (file, field, what to do)."""
    result = SimpleNamespace(text="")
    with pytest.raises(InputError) as caught:
        yield result
    result.text = str(caught.value)
    assert "\n" not in result.text
    assert len(result.text) < 1000
    for word in words:
        assert word in result.text, f"{word!r} is not in {result.text!r}"
