"""Couplings of a simulation are found, and no others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.recording import Recording
from tests import small_cohort
from tests.models.glm_transformer.test_model import fitted


def coupled_recording(seed: int = 0, trials: int = 150) -> Recording:
    """Two populations under slow background of their own; units 0-3 of V1 drive units 0-3 of LM, 4 ms later."""
    rng = np.random.default_rng(seed)
    units, bins = 16, 250
    slow = np.stack([np.cos(np.pi * k * np.arange(bins) / bins) for k in range(4)])
    background = 0.6 * np.einsum("mak,kt->mta", rng.standard_normal((trials, 2, 4)) / 2, slow)
    base = np.log(0.06) + np.repeat(background, 8, axis=2)
    counts = np.zeros((trials, bins, units), dtype=int)
    drive = np.zeros((trials, bins + 8))
    for t in range(bins):
        log_rate = base[:, t].copy()
        log_rate[:, 8:12] += 0.8 * drive[:, t, None]
        counts[:, t] = rng.poisson(np.exp(log_rate))
        for lag, weight in enumerate((0.5, 1.0, 1.0, 0.5), 1):
            drive[:, t + lag] += weight * counts[:, t, :4].sum(1)
    trial, at, unit = np.nonzero(counts)
    repeats = counts[trial, at, unit]
    trial, at, unit = (np.repeat(each, repeats) for each in (trial, at, unit))
    times = np.round(trial * 1.0 + at * 0.002 + 0.001, 5)
    order = np.lexsort((unit, times))
    made = small_cohort.recording("small0", trials=trials)
    start = np.arange(trials) * 1.0
    return replace(
        made,
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units=pd.DataFrame(
            {"unit_id": [f"u{i:02d}" for i in range(units)], "region": "A", "population": ["V1"] * 8 + ["LM"] * 8}
        ),
        trials=pd.DataFrame({"start": start, "stop": start + 0.5, "condition": "c"}),
        duration=float(trials),
        observed=np.array([[0.0, float(trials)]]),
    )


@pytest.mark.slow
def test_known_couplings_are_found_and_no_others(tmp_path: Path) -> None:
    windows = replace(small_cohort.WINDOWS, bin_size=2.0, after=0.5, history=0.0)
    splits = replace(small_cohort.SPLITS, heldout_units=0, forward=0.0, fractions=(0.6, 0.1, 0.3))
    data = small_cohort.open_cohort(*small_cohort.write_cohort(tmp_path, windows, splits, [coupled_recording()]))
    config = Config(coupling="between", width=32, hidden=64, steps=300, splines=6, history="none", batch=32, prune=0.05)
    model = fitted(data, tmp_path / "run", config)
    tables = model.tables(data)
    pairs = tables["area_couplings"].set_index(["sender", "receiver"])
    assert pairs.loc[("V1", "LM"), "q"] < 0.02
    assert ("LM", "V1") not in pairs.index
    assert pairs.loc[("V1", "LM"), "delay"] in (4.0, 6.0)
    found = tables["couplings"]
    true = found["sender"].isin([f"u{i:02d}" for i in range(4)]) & found["receiver"].isin(
        [f"u{i:02d}" for i in range(8, 12)]
    )
    assert (found["q"][true] < 0.05).mean() > 0.9
    # What the shared background takes up of the drive, couplings give back: wrong pairs are negative, and weaker.
    wrong = found[~true & (found["q"] < 0.05)]
    assert wrong["strength"].max() < 0.2 * found["strength"][true].mean()
    assert not ((wrong["sender"] >= "u08") & (wrong["receiver"] < "u08")).any()
