"""Figures of the coupled GLM, from the tables that a fit of the pipeline writes."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch

from pipeline_lib.bases import RaisedCosineLog
from pipeline_lib.figures import FIGURES, NothingToDrawError, make
from pipeline_lib.figures.palette import EXCITATION
from pipeline_lib.training.fit import fit
from pipeline_lib.trains.settings import SplitSettings
from tests.figures.test_figure_drawing import assert_readable
from tests.models.glm.networks import Network, simulate_network
from tests.models.glm.sessions import CONTINUOUS, recording_of
from tests.small_cohort import write_cohort

NAMES = ("coupling_map", "coupling_filters", "coupling_network", "glm_features", "glm_basis")
UNITS = 12


@dataclass
class Fitted:
    paths: dict
    network: Network
    tables: dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Fitted:
    """A fit with tests of all couplings, in which all couplings from region A to region B are left out."""
    directory = tmp_path_factory.mktemp("glm")
    network = simulate_network(units=UNITS, bins=12_000, seed=4)
    splits = SplitSettings(block=5.0, heldout_units=0)
    stores, split = write_cohort(directory, CONTINUOUS, splits, [recording_of(network.counts)])
    out = directory / "fits" / "cohort" / "glm" / "seed0"
    left_out = [f"u{sender} > u{receiver}" for sender in range(6) for receiver in range(6, UNITS)]
    config = {"history": 0.3, "n_basis": 5, "strength": 1e-5, "inference": True, "uncoupled": left_out}
    config |= {"signals": ["speed", {"name": "trials.start", "history": 0.3}], "baseline": 5}
    fit(stores, split, "glm", "glm", config, 0, out)
    tables = {path.stem: pd.read_parquet(path) for path in (out / "tables").glob("*.parquet")}
    return Fitted({"recording": directory / "recordings" / "net", "fits": [out]}, network, tables)


def table_of(name: str, fitted: Fitted) -> pd.DataFrame:
    return FIGURES[name].load().data(**fitted.paths)


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_readable_and_come_back_from_their_csv(name, fitted, tmp_path):
    table = table_of(name, fitted)
    figure = FIGURES[name].load().draw(table)
    assert_readable(figure)
    text = table.to_csv(index=False, float_format="%.6g")
    assert len(text) < 2_000_000
    FIGURES[name].load().draw(pd.read_csv(io.StringIO(text)))
    make(name, fitted.paths, tmp_path / name)
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png", ".csv"}


def test_the_map_keeps_discoveries_and_leaves_the_rest_out(fitted):
    table = table_of("coupling_map", fitted)
    assert len(table) == UNITS * (UNITS - 1) and table["tested"].all()
    sender, receiver = (table[role].str[1:].astype(int) for role in ("sender", "receiver"))
    masked = (sender < 6) & (receiver >= 6)
    assert not table["after"][masked].any() and (table["strength"][masked] == 0).all()
    truth = fitted.network.connected[sender, receiver]
    assert table["after"][truth & ~masked].mean() > 0.6 and table["after"][~truth & ~masked].mean() < 0.15
    figure = FIGURES["coupling_map"].load().draw(table)
    before, after = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert before.count() == UNITS * (UNITS - 1) and after.count() == table["after"].sum()
    # Senders across, receivers down, both in the recording's order within regions A and B: the diagonal is empty.
    assert before.mask.diagonal().all()
    row = table[(table["sender"] == "u3") & (table["receiver"] == "u5")].iloc[0]
    assert before[5, 3] == pytest.approx(row["strength"])


def test_a_map_from_which_nothing_was_taken_is_not_drawn_twice(fitted, tmp_path, monkeypatch):
    free = fitted.tables["couplings"].assign(allowed=True, q=np.nan, p=np.nan)
    module = FIGURES["coupling_map"].load()
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": free})
    with pytest.raises(NothingToDrawError, match="as before"):
        module.data(**fitted.paths)


def test_a_network_of_one_region_is_none(fitted, monkeypatch):
    alone = fitted.tables["couplings"].assign(sender_region="A", receiver_region="A")
    module = FIGURES["coupling_network"].load()
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": alone})
    with pytest.raises(NothingToDrawError, match="one region"):
        module.data(**fitted.paths)


def made_up_couplings(strong: dict[tuple[int, int], float], regions: str) -> pd.DataFrame:
    """Couplings of untested units, each next to nothing but those that are `strong`."""
    pairs = [(sender, receiver) for sender in range(len(regions)) for receiver in range(len(regions))]
    rows = [
        {"sender": f"u{sender}", "receiver": f"u{receiver}", "strength": strong.get((sender, receiver), 0.001)}
        | {"sender_region": regions[sender], "receiver_region": regions[receiver], "q": np.nan, "allowed": sender != 1}
        for sender, receiver in pairs
        if sender != receiver
    ]
    return pd.DataFrame(rows)


def test_without_tests_the_strongest_tenth_of_all_pairs_is_coupled(fitted, monkeypatch):
    made_up = made_up_couplings({(0, 4): 5.0, (1, 4): -4.0, (4, 0): -3.0}, "AAAABB")
    module = FIGURES["coupling_network"].load()
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": made_up})
    table = module.data(**fitted.paths).set_index(["sender_region", "receiver_region"])
    assert table["coupled"].to_dict() == {("A", "A"): 0, ("A", "B"): 2, ("B", "A"): 1, ("B", "B"): 0}
    assert table["share"].tolist() == pytest.approx([0, 2 / 8, 1 / 8, 0])
    assert table["exciting"].tolist() == pytest.approx([0, 0.5, 0, 0]) and not table["tested"].any()
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": made_up_couplings({}, "AAABBC")})
    monkeypatch.setattr(module, "MOST_REGIONS", 2)
    few = module.data(**fitted.paths)
    assert set(few["sender_region"]) == set(few["receiver_region"]) == {"A", "B"}


def test_a_map_of_many_units_shows_those_that_send_or_receive_most(fitted, monkeypatch):
    made_up = made_up_couplings({(0, 4): 5.0, (1, 4): -4.0, (2, 3): 0.1}, "AAAABB")
    module = FIGURES["coupling_map"].load()
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": made_up})
    monkeypatch.setattr(module, "MOST_UNITS", 3)
    table = module.data(**fitted.paths)
    assert set(table["sender"]) == set(table["receiver"]) == {"u0", "u1", "u4"}
    assert (table["after"] == (table["sender"] != "u1")).all() and not table["tested"].any()


def test_inputs_that_say_nothing_make_room_for_others(fitted, monkeypatch):
    module = FIGURES["glm_features"].load()
    inputs = {"u0, 0": [0.0, 1.0], "baseline[a]": [0.0, 0.0], "speed": [-1.0, -2.0], "u1, 0": [0.0, 3.0]}
    made_up = pd.DataFrame(inputs).rename_axis("time").reset_index().melt("time", var_name="column")
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": made_up})
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    table = module.data(**fitted.paths)
    assert table[["row", "group", "value"]].to_numpy().tolist() == [
        [0, "u0", 0.0],
        [0, "u0", 1.0],
        [1, "speed", -1.0],
        [1, "speed", -2.0],
    ]


@pytest.mark.parametrize("regions", [3, 6])
def test_networks_of_more_regions_are_readable(fitted, monkeypatch, regions):
    table = fitted.tables["couplings"]
    names = {f"u{unit}": f"VIS{'abcdef'[unit % regions]}" for unit in range(UNITS)}
    mixed = table.assign(sender_region=table["sender"].map(names), receiver_region=table["receiver"].map(names))
    module = FIGURES["coupling_network"].load()
    monkeypatch.setattr(module, "fit_tables", lambda *_: {"glm": mixed})
    network = module.data(**fitted.paths)
    assert len(network) == regions**2
    assert_readable(module.draw(network))


def test_filters_have_intervals_that_cover_the_truth(fitted):
    table = table_of("coupling_filters", fitted)
    assert table["own"].any() and (table["low"] <= table["value"]).all()
    covered = []
    for (sender, receiver), line in table.groupby(["sender", "receiver"]):
        truth = fitted.network.kernel @ fitted.network.weights[int(sender[1:]), int(receiver[1:])]
        covered.append(((line["low"] <= truth) & (truth <= line["high"])).mean())
    assert np.mean(covered) > 0.75
    filters, pair = fitted.tables["filters"], ["sender", "receiver"]
    both = table.merge(filters[[*pair, "lag", "error"]], on=[*pair, "lag"])
    np.testing.assert_allclose(both["high"] - both["low"], 2 * 1.96 * both["error"], rtol=1e-6)
    own = filters[filters["sender"] == filters["receiver"]].assign(size=lambda rows: rows["value"].abs())
    largest = own.groupby("sender")["size"].sum().nlargest(3)
    assert len(both) == len(table) and set(table.loc[table["own"], "sender"]) == set(largest.index)
    pairs = table[~table["own"]].drop_duplicates("place")
    assert (pairs["q"] < 0.05).all()
    couplings = fitted.tables["couplings"].set_index(["sender", "receiver"])
    found = couplings[couplings["q"] < 0.05]["strength"]
    shown = [couplings.loc[(pair.sender, pair.receiver), "strength"] for pair in pairs.itertuples()]
    assert shown[0] == found.max() and min(shown) == found.min()


def test_the_network_counts_pairs_and_draws_what_is_coupled(fitted):
    table = table_of("coupling_network", fitted).set_index(["sender_region", "receiver_region"])
    assert table.loc[("A", "A"), "pairs"] == 30 and table.loc[("A", "B"), "pairs"] == 36
    assert table.loc[("A", "B"), "coupled"] == 0 and table.loc[("B", "A"), "coupled"] > 0
    couplings = fitted.tables["couplings"]
    back = couplings[(couplings["sender_region"] == "B") & (couplings["receiver_region"] == "A")]
    assert table.loc[("B", "A"), "share"] == pytest.approx((back["q"] < 0.05).mean())
    figure = FIGURES["coupling_network"].load().draw(table.reset_index())
    arrows = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 1
    exciting = table.loc[("B", "A"), "exciting"] >= 0.5
    assert (to_rgb(arrows[0].get_edgecolor()[:3]) == to_rgb(EXCITATION)) == exciting


def test_the_excerpt_of_inputs_is_the_convolution_of_the_counts(fitted):
    table = fitted.tables["inputs"]
    kernel = RaisedCosineLog(5).kernel(30)
    own = table[table["column"] == "u2, 1"]
    bins = np.rint(own["time"].to_numpy() / 0.01).astype(int)
    counts = np.concatenate([np.zeros((30, UNITS)), fitted.network.counts])
    expected = [counts[bin_ : bin_ + 30, 2][::-1] @ kernel[:, 1] for bin_ in bins]
    np.testing.assert_allclose(own["value"], expected, atol=1e-5)
    shown = table_of("glm_features", fitted)
    assert {"baseline", "speed", "trials.start", "u0", "u4"} <= set(shown["group"])


def test_the_basis_is_the_one_that_was_fitted(fitted):
    table = table_of("glm_basis", fitted)
    kernel = table.pivot(index="lag", columns="function", values="value").to_numpy()
    np.testing.assert_allclose(kernel, fitted.network.kernel, atol=1e-9)


def test_tables_name_everything(fitted):
    assert {"couplings", "filters", "basis", "inputs"} <= set(fitted.tables)
    couplings, filters = fitted.tables["couplings"], fitted.tables["filters"]
    columns = ["session", "sender", "receiver", "sender_region", "receiver_region", "allowed", "strength"]
    assert list(couplings.columns) == [*columns, "peak", "peak_lag", "p", "q"]
    assert couplings["p"].notna().equals(couplings["allowed"])
    pair = couplings[couplings["q"] < 0.05].iloc[0]
    line = filters[(filters["sender"] == pair["sender"]) & (filters["receiver"] == pair["receiver"])]
    assert line["value"].sum() == pytest.approx(pair["strength"], rel=1e-4)
    assert line.loc[line["value"].abs().idxmax(), "lag"] == pair["peak_lag"]
    assert (
        (filters["error"] >= 0).all() and (filters["error"] > 0).mean() > 0.9 and len(filters) == (UNITS**2 - 36) * 30
    )


def test_the_fits_history_is_a_training_curve(fitted):
    curve = FIGURES["training_curves"].load().data(fits=fitted.paths["fits"])
    assert (curve["part"] == "training").all() and (np.diff(curve["step"]) == 1).all()
    assert len(curve) > 4 and curve["loss"].iloc[-1] < curve["loss"].iloc[0]


def test_without_tables_there_is_nothing_to_draw(fitted, tmp_path):
    empty = tmp_path / "fits" / "cohort" / "psth" / "seed0"
    empty.mkdir(parents=True)
    for name in NAMES:
        with pytest.raises(NothingToDrawError, match="No model fitted to net has a table"):
            FIGURES[name].load().data(fitted.paths["recording"], [empty])
    assert Path(empty).is_dir()
