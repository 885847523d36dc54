"""Rows of the recovery of couplings, from files to table: what is a synapse, over how many, in which bins."""

import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.metrics import roc_auc_score

from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.recording import Truth
from pipeline_lib.trains.splits import Split
from tests.evaluation.made_up_fit import name_fit
from tests.small_cohort import UNITS, recording, write_cohort

NOT_FITTED = 3


@pytest.fixture(scope="module")
def strengths() -> dict[str, np.ndarray]:
    """True couplings, of which some are no synapse (as of a shared input), and fitted ones: true ones and noise."""
    rng, pairs = np.random.default_rng(0), (UNITS, UNITS)
    synapse = (rng.random(pairs) < 0.3) & ~np.eye(UNITS, dtype=bool)
    shape = np.exp(-np.arange(1, 101) * 2.0 / 50)  # lags of 2 ms, up to 200 ms
    size = rng.uniform(0.5, 1.5, pairs) * rng.choice([-1, 1], pairs) * (synapse | (rng.random(pairs) < 0.2))
    late = np.where(synapse, rng.choice([10, 30], pairs), 0)
    filters = np.stack([np.roll(shape, shift) for shift in late.ravel()]).reshape(*pairs, -1) * size[:, :, None]
    fitted = np.where(synapse[:, :, None], filters[:, :, 4::5], 0) + 0.02 * rng.standard_normal((*pairs, 20))
    fitted[:, NOT_FITTED] = np.nan
    return {"coupling": filters.sum(axis=2), "coupling_filters": filters, "synapse": synapse, "fitted": fitted}


@pytest.fixture(scope="module")
def rows(strengths: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    made, directory = recording(trials=30), tmp_path_factory.mktemp("couplings")
    made.units["population"] = np.where(np.arange(UNITS) < 5, "A", "B")
    told = {"bin_size": 2.0, "unit_id": list(made.units["unit_id"])}
    made.truth = Truth({name: array for name, array in strengths.items() if name != "fitted"}, told)
    stores, split_path = write_cohort(directory, made=[made])
    split = Split.read(split_path)  # of bins of 20 ms
    session = zarr.open_group(str(directory / "fit/predictions.zarr"), mode="w").create_group("small0")
    test = split.part("small0", "test").index.to_numpy()
    session.create_array("rates", data=np.ones((len(test), 50, UNITS), np.float32))
    session.create_array("sample", data=test)
    group = session.create_group("couplings", attributes={"bin_size": 10.0})
    group.create_array("filters", data=strengths["fitted"])
    group.create_array("strength", data=strengths["fitted"].sum(axis=2))
    out = directory / "scores.parquet"
    evaluate(name_fit(directory / "fit"), Scoring(stores, split_path, [directory / "recordings/small0"], 0), out)
    table = pd.read_parquet(out)
    return table[table["units"] == "coupling"].set_index("metric")


@pytest.mark.parametrize("between", [False, True])
def test_pairs_are_judged_by_their_synapses_among_all_or_between_populations(
    rows: pd.DataFrame, strengths: dict[str, np.ndarray], between: bool
) -> None:
    own = rows[rows["aggregation"].str.endswith("between populations") == between]
    asked = ~np.eye(UNITS, dtype=bool)
    if between:
        asked &= (np.arange(UNITS) < 5)[:, None] != (np.arange(UNITS) < 5)
    pairs = asked & (np.arange(UNITS) != NOT_FITTED)
    synapse, fitted = strengths["synapse"][pairs], strengths["fitted"][pairs]
    strength, energy, true = fitted.sum(axis=1), (fitted**2).sum(axis=1), strengths["coupling"][pairs]
    right = (np.sign(strength) == np.sign(true))[synapse]
    expected = {
        "coupling_auc": (roc_auc_score(synapse, abs(strength)), pairs.sum()),
        "coupling_filter_auc": (roc_auc_score(synapse, energy), pairs.sum()),
        "coupling_sign_accuracy": (right.mean(), synapse.sum()),
        "coupling_correlation": (np.corrcoef(strength, true)[0, 1], pairs.sum()),
        "coupling_false_share": (energy[~synapse].sum() / energy.sum(), pairs.sum()),
        "coupling_not_fitted": ((asked & ~pairs).sum(), asked.sum()),
    }
    assert (true[~synapse] != 0).any()
    for metric, (value, n) in expected.items():
        assert own.loc[metric, ["value", "n"]].tolist() == pytest.approx([value, n], abs=1e-9), metric
    filters = own.loc["coupling_filter_correlation"]  # alike at the same lags, though in bins of another size
    assert filters["value"] > 0.95 and filters["n"] == synapse.sum()
