"""The model in the pipeline: stages, restarts, several sessions, couplings tested."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm_transformer import timing
from pipeline_lib.models.glm_transformer import unit_scores as unit_scores_module
from pipeline_lib.models.glm_transformer.model import GLMTransformerModel
from pipeline_lib.models.glm_transformer.network import weight_group
from pipeline_lib.models.glm_transformer.readout import area_filters
from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.models.glm_transformer.stages import stages
from pipeline_lib.models.glm_transformer.tables import coupling_share
from pipeline_lib.models.glm_transformer.unit_scores import unit_scores
from pipeline_lib.training.batches import InOrder
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.training.run import Run, State, read_arrays, write_arrays
from tests import small_cohort

SMALL = Config(
    steps=6,
    evaluate_every=3,
    batch=12,
    splines=5,
    width=8,
    hidden=16,
    latents=2,
    token=0.1,
    coupling_peak=0.04,
    history_peak=0.04,
    permutations=19,
)


def cohort(directory: Path, sessions: int = 1) -> tuple[list[Path], Path]:
    made = [small_cohort.recording(f"small{number}", number, units=8 + number) for number in range(sessions)]
    for number, each in enumerate(made):
        areas = np.where(np.arange(8 + number) < 4, "V1", "LM" if number == 0 else "AL")
        each.units = each.units.assign(population=areas)
    return small_cohort.write_cohort(directory, made=made)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    return small_cohort.open_cohort(*cohort(tmp_path_factory.mktemp("one")))


def fitted(data: FitData, directory: Path, config: Config = SMALL) -> GLMTransformerModel:
    model = GLMTransformerModel(config, seed=0)
    model.fit(data, Run(directory))
    return model


def test_each_stage_trains_what_is_its_own(data: FitData, tmp_path: Path) -> None:
    model = GLMTransformerModel(SMALL, seed=0)
    from pipeline_lib.models.glm_transformer import stages as module

    seen: list[tuple[str, dict[str, np.ndarray]]] = []
    terms = []

    class Watched(module.StageRun):
        def resume(self) -> State | None:
            terms.append(model.network.terms)
            seen.append((self.name, {k: v.detach().numpy().copy() for k, v in model.network.named_parameters()}))
            return super().resume()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "StageRun", Watched)
        run = Run(tmp_path)
        model.fit(data, run)
    assert [name for name, _ in seen] == ["response", "trials", "coupling"]
    assert terms == [{"history"}, {"history", "trials"}, {"history", "trials", "coupling"}]
    assert [row["step"] for row in run.rows] == [3, 6, 9, 12, 15, 18]
    for (name, before), (_, after) in pairwise(seen):
        stage = next(each for each in stages(SMALL) if each.name == name)
        changed = {weight_group(weight) for weight in before if not np.array_equal(before[weight], after[weight])}
        # Between these two, couplings are given a start.
        assert changed == stage.trained | ({"coupling"} if name == "trials" else set())


def test_couplings_that_are_frozen_stay_as_they_start(data: FitData, tmp_path: Path) -> None:
    def directions(config: Config, name: str) -> np.ndarray:
        send = fitted(data, tmp_path / name, config).state()["small0/send"]
        return send / np.linalg.norm(send, axis=0)

    start = directions(replace(SMALL, coupling="none"), "none")  # no stage that trains them
    kept = directions(replace(SMALL, freeze=("*/send",)), "kept")
    free = directions(SMALL, "free")
    area = slice(0, 4)
    for receiver in range(2):  # a fit ends with loadings scaled to norm 1 in each population
        cosines = [np.abs((start[area, receiver, 0] * each[area, receiver, 0]).sum()) for each in (kept, free)]
        sizes = [np.linalg.norm(each[area, receiver, 0]) for each in (start, kept, free)]
        assert cosines[0] == pytest.approx(sizes[0] * sizes[1], rel=1e-5)
        assert cosines[1] < 0.999 * sizes[0] * sizes[2]


def test_weights_of_other_populations_are_refused(data: FitData, tmp_path: Path) -> None:
    """As many of them: shapes fit."""
    path, config = tmp_path / "initial.safetensors", replace(SMALL, steps=1, evaluate_every=1)
    given = fitted(data, tmp_path / "first", config).state()
    for name in ("LM", "RL"):
        layout = given["layout"].tobytes().replace(b'"LM"', f'"{name}"'.encode())
        write_arrays(path, given | {"layout": np.frombuffer(layout, np.uint8)})
        tuned = replace(config, initial=str(path))
        if name == "LM":
            fitted(data, tmp_path / "same", tuned)
        else:
            with pytest.raises(InputError, match="populations: found RL, V1; accepted: a fit of LM, V1"):
                fitted(data, tmp_path / "other", tuned)


def test_what_is_settled_stays_as_it_is() -> None:
    """Xin & Kass (2025): the response before the trials, the encoder before the couplings."""
    trained = [each.trained for each in stages(replace(SMALL, prune=0.05))]
    assert trained[0] == {"readout", "response", "history"}
    assert trained[1] == {"readout", "history", "encoder", "decoder"}
    assert trained[2] == trained[3] == {"readout", "history", "decoder", "coupling"}


def test_history_may_come_last() -> None:
    plan = stages(replace(SMALL, history="last"))
    assert [each.name for each in plan] == ["response", "trials", "coupling", "history"]
    assert all("history" not in each.terms for each in plan[:3])
    assert plan[3].trained == {"history"}
    assert [each.name for each in stages(replace(SMALL, background="invariant", coupling="none"))] == ["response"]


class Killed(Exception):
    pass


class Dying(Run):
    """A run that is killed after so many checkpoints, one of them at every step."""

    left = 0

    def checkpoint(self, state: object, force: bool = False) -> None:
        super().checkpoint(state, force=True)
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize("after", [6, 9, 17])  # the last step of a stage, and within others
def test_a_killed_fit_goes_on_to_the_same_bytes(data: FitData, tmp_path: Path, after: int) -> None:
    whole, run = GLMTransformerModel(SMALL, seed=0), Run(tmp_path / "whole")
    whole.fit(data, run)
    dying = Dying(tmp_path / "killed")
    dying.left = after
    with pytest.raises(Killed):
        GLMTransformerModel(SMALL, seed=0).fit(data, dying)
    resumed, second = GLMTransformerModel(SMALL, seed=0), Run(tmp_path / "killed")
    resumed.fit(data, second)
    assert second.rows == run.rows
    expected = whole.state()
    assert all(np.array_equal(value, expected[name]) for name, value in resumed.state().items())


def test_a_killed_fit_neither_turns_nor_tests_its_couplings_again(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are those of the start until the checkpoint is read: a test of them would say nothing."""
    asked: list[str] = []
    for name in ("align", "prune"):
        usual = getattr(GLMTransformerModel, name)
        monkeypatch.setattr(
            GLMTransformerModel, name, lambda *each, name=name, usual=usual: asked.append(name) or usual(*each)
        )
    config = replace(SMALL, prune=1e-6)
    for after in (15, 21):  # steps: in the stage of the couplings, and in the one after the test
        dying = Dying(tmp_path / str(after))
        dying.left = after
        with pytest.raises(Killed):
            GLMTransformerModel(config, seed=0).fit(data, dying)
        GLMTransformerModel(config, seed=0).fit(data, Run(tmp_path / str(after)))
        assert asked == ["align", "prune"]
        asked.clear()


def test_conditions_have_the_same_number_in_every_part(data: FitData, tmp_path: Path) -> None:
    model, rows = GLMTransformerModel(SMALL, seed=0), data.split.samples
    for number, name in enumerate(("c0", "c1", "c2")):
        some = rows[rows["condition"] == name]
        assert set(model.inputs(data, "small0", some)["condition"].tolist()) == {number}


def test_a_fit_publishes_components_that_make_up_its_rates(tmp_path: Path) -> None:
    stores, split = cohort(tmp_path)
    settings = {name: getattr(SMALL, name) for name in ("steps", "evaluate_every", "batch", "splines", "width")}
    settings |= {
        "hidden": 16,
        "token": 0.1,
        "coupling_peak": 0.04,
        "history_peak": 0.04,
        "components": True,
    }
    fit(stores, split, "glm_transformer", "glm_transformer", settings, 0, tmp_path / "fit")
    model, data = load_fit(tmp_path / "fit"), small_cohort.open_cohort(stores, split)
    samples = data.samples("small0", "test")
    parts = model.components(data, "small0", samples)
    rates = model.predict(data, "small0", samples)
    assert parts.keys() == {"background", "coupling", "history"}
    assert np.allclose(np.exp(sum(parts.values())), rates, rtol=1e-5)
    without = GLMTransformerModel(replace(model.config, parts=("background", "coupling")), 0)
    without.load_state(read_arrays(tmp_path / "fit" / "model.safetensors")[0])
    assert np.allclose(
        without.predict(data, "small0", samples), np.exp(parts["background"] + parts["coupling"]), rtol=1e-5
    )
    tables = {path.stem: pd.read_parquet(path) for path in (tmp_path / "fit" / "tables").iterdir()}
    known = {"couplings", "area_couplings", "area_filters", "history_filters", "loadings", "scores", "unit_scores"}
    assert tables.keys() == known
    assert len(tables["area_couplings"]) == 4 and tables["area_couplings"]["p"].between(0, 1).all()
    heldout = data.trains["small0"].units["unit_id"].iloc[data.heldout("small0")]
    assert not tables["couplings"]["sender"].isin(heldout).any()
    assert tables["couplings"]["receiver"].isin(heldout).any()


def test_units_are_scored_with_and_without_a_part(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(data, tmp_path)
    samples, heldin = data.samples("small0", "test"), data.heldin("small0")
    found = unit_scores(model, data, "small0")
    counts, mask = (each[:, data.split.history_bins :, heldin] for each in data.read("small0", samples))
    rates = model.predict(data, "small0", samples)[:, :, heldin]
    past = model.components(data, "small0", samples)["history"][:, :, heldin]
    for row in (0, len(heldin) - 1):
        y, seen = counts[..., row][mask[..., row]].astype(float), mask[..., row]
        for column, predicted in (("bits_per_spike", rates), ("without_history", rates / np.exp(past))):
            r = predicted[..., row][seen].astype(float)
            gain = (y * np.log(r) - r).sum() - (y * np.log(y.mean()) - y.mean()).sum()
            assert found[column].iloc[row] == pytest.approx(gain / y.sum() / np.log(2), rel=1e-5), column
        assert found["spikes"].iloc[row] == y.sum() > 0
    ids = data.trains["small0"].units["unit_id"]
    assert found["unit_id"].tolist() == ids.iloc[heldin].tolist() and len(found) < len(ids)
    scores = ["spikes", "bits_per_spike", "without_coupling", "without_history"]
    assert found.columns.tolist() == ["unit_id", "region", "population", *scores]
    monkeypatch.setattr(unit_scores_module, "PREDICTED", 5)
    pd.testing.assert_frame_equal(unit_scores(model, data, "small0"), found)
    untested = replace(data.split, samples=data.split.samples.drop(index=samples.index))
    empty = unit_scores(model, replace(data, split=untested), "small0")
    assert (empty["spikes"] == 0).all() and empty["bits_per_spike"].isna().all()


def test_the_share_of_coupling_counts_populations_that_drive_others(data: FitData, tmp_path: Path) -> None:
    model = fitted(data, tmp_path)
    samples = data.samples("small0", "test")
    mask = data.mask("small0", samples)[:, data.split.history_bins :]
    total = model.components(data, "small0", samples)
    total = total["background"] + total["coupling"]
    head = model.network.head("small0")
    head.coupled.fill_diagonal_(0)
    cross = model.components(data, "small0", samples)["coupling"]
    head.coupled.fill_(1)
    heldin = data.heldin("small0")
    with_it, without = (np.where(mask, each, np.nan)[..., heldin] for each in (total, total - cross))
    expected = 1 - np.nanvar(without, axis=(0, 1)).sum() / np.nanvar(with_it, axis=(0, 1)).sum()
    assert coupling_share(model, data, "small0", samples) == pytest.approx(expected, rel=1e-3)


def test_sessions_share_the_encoder_and_keep_their_own_weights(tmp_path: Path) -> None:
    data = small_cohort.open_cohort(*cohort(tmp_path, sessions=2))
    model = fitted(data, tmp_path / "run")
    assert model.network.areas == ["AL", "LM", "V1"]
    state = model.state()
    assert state["small0/readout"].shape == (8, 1) and state["small1/readout"].shape == (9, 1)
    assert not any(name.startswith("small") for name in state if "posterior" in name)
    for session, missing in (("small0", "AL"), ("small1", "LM")):
        samples = data.samples(session, "test")
        rates = model.predict(data, session, samples)
        assert np.isfinite(rates).all()
        mean, _ = model.posterior(data, session, samples)
        absent = model.network.areas.index(missing)
        assert (mean.reshape(len(samples), 3, -1)[:, absent] == 0).all()
        assert (mean != 0).any()
    # What there is no test window for is left out.
    rows = data.split.samples
    data = replace(
        data, split=replace(data.split, samples=rows[(rows["session"] != "small0") | (rows["split"] != "test")])
    )
    tables = model.tables(data)
    assert tables["scores"]["session"].tolist() == ["small1"] and tables["scores"]["value"].notna().all()
    assert all(table.columns[0] == "session" for table in tables.values())
    assert set(tables["couplings"]["session"]) == {"small0", "small1"}
    without = replace(data.split, samples=data.split.samples[data.split.samples["split"] != "test"])
    assert "scores" not in model.tables(replace(data, split=without))


def test_a_coupling_that_trials_do_not_bear_out_is_dropped(data: FitData, tmp_path: Path) -> None:
    model = fitted(data, tmp_path / "kept")
    assert model.network.head("small0").coupled.all()
    run = Run(tmp_path / "pruned")
    # Eighteen steps from weights at random: nothing is timed to anything.
    pruned = GLMTransformerModel(replace(SMALL, prune=1e-6), seed=0)
    pruned.fit(data, run)
    assert not pruned.network.head("small0").coupled.any()
    assert (pruned.couplings("small0").filters[0, 1:] == 0).all()
    assert not area_filters(pruned.network, "small0").any()
    assert {row["stage"] for row in run.rows} == {"response", "trials", "coupling", "pruned"}
    loaded = GLMTransformerModel(pruned.config, 0)
    loaded.load_state(pruned.state())
    samples = data.samples("small0", "test")
    assert np.array_equal(loaded.predict(data, "small0", samples), pruned.predict(data, "small0", samples))
    assert len(pruned.tables(data)["area_couplings"]) == 0


def test_a_coupling_is_dropped_by_its_own_test(data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be tested stays; the direction that is not borne out goes."""
    model = fitted(data, tmp_path, replace(SMALL, prune=0.05))
    coupled = model.network.head("small0").coupled
    coupled.fill_(1)
    z = np.array([[np.nan, -1.0], [5.0, 4.0]])
    monkeypatch.setattr(timing, "timing_test", lambda network, batches: z)
    assert model.prune(InOrder(model.windows(data, "validation", Run(tmp_path / "other")), 4)) == 1
    assert coupled.tolist() == [[1, 0], [1, 1]]
    # p = .02 of one of four pairs is no discovery at a rate of .05.
    coupled.fill_(1)
    z[:] = [[-3.0, norm.isf(0.02)], [-3.0, -3.0]]
    assert model.prune(InOrder(model.windows(data, "validation", Run(tmp_path / "other")), 4)) == 4


def test_couplings_of_another_fit_are_not_turned(data: FitData, tmp_path: Path) -> None:
    model = fitted(data, tmp_path)
    send = model.network.head("small0").send.detach().clone()
    for changes in ({"initial": "model.safetensors"}, {"compat": True}, {}):
        model.config = replace(SMALL, **changes)
        model.training = model.windows(data, "train", Run(tmp_path / "other"))
        model.align(())
        kept = np.array_equal(model.network.head("small0").send.detach(), send)
        assert kept is bool(changes)


def test_what_a_prediction_sees_and_how_sure_a_latent_is(data: FitData, tmp_path: Path) -> None:
    assert GLMTransformerModel(SMALL, 0).sees == "held-in units, past and future"
    assert GLMTransformerModel(replace(SMALL, background="gain"), 0).sees == "held-in units, past and future"
    assert GLMTransformerModel(replace(SMALL, background="invariant"), 0).sees == "past of held-in units"
    model, samples = fitted(data, tmp_path), data.samples("small0", "test")
    extras = model.extras(data, "small0", samples)
    head = model.network.head("small0")
    for weights in (head.send, head.receive):  # a pair's filter alone says how strong it is
        norms = (head.member.T @ weights.detach().square().flatten(1)).sqrt()
        assert np.allclose(norms, 1, atol=1e-5)
    mean, log_variance = model.network.encode(model._windows(data, "small0", samples).batch(slice(None)))
    assert np.allclose(extras["latent_mean"], mean.detach().flatten(1), atol=1e-5)
    assert np.allclose(extras["latent_sd"] ** 2, log_variance.detach().exp().flatten(1), atol=1e-5)
    assert not np.allclose(extras["latent_sd"], 1, atol=1e-3)


def test_of_what_a_silent_unit_sends_nothing_is_known(tmp_path: Path) -> None:
    """However sure it is that the receiver listens to the others of its population."""
    made = small_cohort.recording("small0", units=8)
    made.units["population"] = np.where(np.arange(8) < 4, "V1", "LM")
    spoke = made.spike_units != 1
    made.spike_times, made.spike_units = made.spike_times[spoke], made.spike_units[spoke]
    data = small_cohort.open_cohort(*small_cohort.write_cohort(tmp_path, made=[made]))
    assert 1 in data.heldin("small0")
    found = fitted(data, tmp_path / "run", replace(SMALL, rank=2)).tables(data)["couplings"]
    silent = found["sender"] == "u1"
    assert found.loc[silent, ["p", "q"]].isna().all(axis=None)
    assert found.loc[~silent & (found["sender"] != found["receiver"]), "p"].notna().all()


@pytest.mark.parametrize("term", ["coupling", "history"])
def test_filters_that_end_within_a_bin_are_refused_in_a_line(data: FitData, tmp_path: Path, term: str) -> None:
    """The published settings are for bins of 2 ms; here are 20."""
    config = replace(SMALL, **{f"{term}_peak": 0.001})
    with pytest.raises(InputError, match=f"{term}_peak: found 0.001; accepted: more: no function .* 20 ms"):
        fitted(data, tmp_path / "refused", config)
    fitted(data, tmp_path / "without", replace(config, **{term: "none"}))


def test_windows_may_be_longer_than_the_published_positions(tmp_path: Path) -> None:
    windows = replace(small_cohort.WINDOWS, mode="continuous", bin_size=5.0, length=3.0)
    splits = replace(small_cohort.SPLITS, block=3.5)
    long = small_cohort.open_cohort(*small_cohort.write_cohort(tmp_path / "long", windows, splits))
    model = fitted(long, tmp_path / "run", replace(SMALL, token=0.005, layers=1, permutations=0))
    samples = long.samples("small0", "test")
    assert np.isfinite(model.predict(long, "small0", samples)).all()


def test_a_setting_that_makes_no_sense_is_refused_in_a_line() -> None:
    wrong = {"splines": 2, "rank": 0, "width": 7, "coupling_basis": 1}
    parts = [("coupling",), ("background", "coupling", "coupling")]
    for field, value in [*wrong.items(), *(("parts", each) for each in parts), ("prune", 0.0), ("prune", 1.0)]:
        with pytest.raises(InputError, match=field):
            Config(**{field: value})
