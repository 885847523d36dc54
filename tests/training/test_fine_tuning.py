"""Weights that a training starts from, weights that it leaves alone, and settings that make no sense."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file
from pipeline_lib.models.contract import FitData
from pipeline_lib.training.fit import fit
from pipeline_lib.training.run import Run, read_arrays, write_arrays
from tests.small_cohort import SPLITS, WINDOWS, Cohort, open_cohort, recording, write_cohort
from tests.training.tiny_network import Config, TinyModel

TINY = str(Path(__file__).with_name("tiny_network.py"))


def test_fine_tuning_starts_from_the_given_weights_and_leaves_the_frozen_ones(cohort: Cohort, tmp_path: Path) -> None:
    stores, split = cohort
    fit(stores, split, "tiny", TINY, {}, 0, tmp_path / "cohort")
    weights = tmp_path / "cohort" / "model.safetensors"
    made = write_cohort(tmp_path / "new", made=[recording("three", 5, units=7, trials=24)])
    config = {"initial": str(weights), "freeze": ["shared.*", "*/read_out.bias"]}
    fit(*made, "tiny", TINY, config, 1, tmp_path / "fine")
    before, after = read_arrays(weights)[0], read_arrays(tmp_path / "fine" / "model.safetensors")[0]
    assert after["shared.weight"].tobytes() == before["shared.weight"].tobytes()
    own = {f"three/{name}.{kind}" for name in ("read_in", "read_out") for kind in ("weight", "bias")}
    learned = {name for name in before if name.endswith("/trained_on")} | {"three/trained_on"}
    assert len(learned) == 3 and set(after) == {"layout", "shared.weight", "shared.bias"} | own | learned
    fit(*made, "tiny", TINY, {**config, "steps": 1, "learning_rate": 1e-30}, 1, tmp_path / "start")
    start = read_arrays(tmp_path / "start" / "model.safetensors")[0]
    assert after["three/read_out.bias"].tobytes() == start["three/read_out.bias"].tobytes()
    assert not np.array_equal(after["three/read_in.weight"], start["three/read_in.weight"])


def test_damaged_weights_are_not_started_from(cohort: Cohort, tmp_path: Path) -> None:
    """Neither those that a manifest knows, nor a copy that was cut."""
    stores, split = cohort
    fit(stores, split, "tiny", TINY, {"steps": 1}, 0, tmp_path / "fit")
    weights, copy = tmp_path / "fit/model.safetensors", tmp_path / "copy.safetensors"
    content = bytearray(weights.read_bytes())
    copy.write_bytes(content[:-4])
    content[-2] ^= 1
    weights.write_bytes(content)
    for damaged, found in ((weights, "content: found bytes that do not agree"), (copy, "file: found .*[Ii]ncomplete")):
        with pytest.raises(InputError, match=f"{damaged}: {found}"):
            fit(stores, split, "tiny", TINY, {"steps": 1, "initial": str(damaged)}, 0, tmp_path / "fine")


def test_weights_that_learned_from_what_is_to_be_tested_are_refused(tmp_path: Path) -> None:
    """Also where a fit in between, of another session, learned from nothing of it."""
    one, two = recording("one", 5, units=7, trials=24), recording("two", 6, units=7, trials=24)
    other = replace(SPLITS, fractions=(0.5, 0.1, 0.4))
    cohorts = {
        "before": (WINDOWS, SPLITS, [one]),
        "between": (WINDOWS, SPLITS, [two]),
        "same": (WINDOWS, SPLITS, [one, two]),
        "shorter": (replace(WINDOWS, after=0.5), SPLITS, [one]),
        "other": (WINDOWS, other, [one]),
    }
    data = {name: open_cohort(*write_cohort(tmp_path / name, *made), fitting=True) for name, made in cohorts.items()}

    def tuned(name: str, initial: str | None) -> str:
        model = TinyModel(Config(steps=1, initial=initial), 0)
        model.fit(data[name], Run(tmp_path / f"run {name}"))
        write_arrays(tmp_path / f"{name}.safetensors", model.state())
        again = TinyModel(Config(steps=1), 0)
        again.load_state(model.state())
        assert again.state().keys() == model.state().keys()
        return str(tmp_path / f"{name}.safetensors")

    before = tuned("before", None)
    between = tuned("between", before)
    for initial in (before, between):
        tuned("same", initial)
        tuned("shorter", initial)
        with pytest.raises(
            InputError, match=r"trained on: found [1-9][0-9]* test windows of session one; accepted: a fit"
        ):
            tuned("other", initial)
    begin, stop = read_arrays(between)[0]["one/trained_on"].T
    train = data["before"].split.part("one", "train")
    assert (stop - begin).sum() == (train["bins"] * data["before"].split.bin_ticks).sum()


def test_windows_learned_from_in_any_fit_before_are_not_to_be_tested(tmp_path: Path) -> None:
    """Validation windows may have been: they are for choosing. What two fits learned from adds up."""
    data = open_cohort(*write_cohort(tmp_path, made=[recording("one", 5, units=7, trials=24)]), fitting=True)

    def tuned(name: str, initial: str | None = None, **parts: str) -> str:
        samples = data.split.samples
        changed = replace(data.split, samples=samples.assign(split=samples["split"].replace(parts)))
        model = TinyModel(Config(steps=1, initial=initial), 0)
        model.fit(replace(data, split=changed), Run(tmp_path / name))
        write_arrays(tmp_path / f"{name}.safetensors", model.state())
        return str(tmp_path / f"{name}.safetensors")

    first = tuned("first")
    second = tuned("second", first, train="validation", validation="train")
    for initial in (first, second):
        with pytest.raises(InputError, match="test windows of session one"):
            tuned("third", initial, train="test", test="train")
    with pytest.raises(InputError, match="test windows of session one"):
        tuned("third", second, validation="test", test="validation")


def test_given_weights_are_not_started_anew_from_the_data(data: FitData, tmp_path: Path) -> None:
    """As read-outs start at mean rates where nothing is given."""

    class Starting(TinyModel):
        def initialise(self, windows: object) -> None:
            self.network.shared.weight.data.zero_()

    states = []
    for initial in (None, str(tmp_path / "w.safetensors")):
        model = Starting(Config(steps=1, learning_rate=1e-30 if initial else 1e-2, initial=initial), 0)
        model.fit(data, Run(tmp_path / str(len(states))))
        states.append(model.state())
        write_arrays(tmp_path / "w.safetensors", states[0])
    assert states[0]["shared.weight"].any()
    np.testing.assert_array_equal(states[1]["shared.weight"], states[0]["shared.weight"])


@pytest.mark.parametrize("lacking", ["layout", "shared.bias"])
def test_a_file_that_lacks_what_all_fits_have_is_refused(data: FitData, tmp_path: Path, lacking: str) -> None:
    before = TinyModel(Config(steps=1), 0)
    before.fit(data, Run(tmp_path))
    state = before.state()
    del state[lacking]
    write_arrays(tmp_path / "w.safetensors", state)
    with pytest.raises(InputError, match=f"{lacking}: found nothing; accepted: "):
        TinyModel(Config(initial=str(tmp_path / "w.safetensors")), 0).fit(data, Run(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": "nowhere.safetensors"}, "initial: found nowhere.safetensors"),
        (
            {"freeze": ("encoder.*",)},
            "freeze: found 'encoder.+'; accepted: a pattern of weights such as shared",
        ),
        ({"steps": 0}, "steps: found 0; accepted: at least 1"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data: FitData, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TinyModel(Config(**settings), 0).fit(data, Run(tmp_path))


def test_a_fit_is_made_again_when_what_it_starts_from_has_changed(cohort: Cohort, tmp_path: Path) -> None:
    weights, out = tmp_path / "cohort" / "model.safetensors", tmp_path / "fine"
    for seed, code in ((0, "first"), (0, "first"), (3, "second")):
        fit(*cohort, "tiny", TINY, {"steps": 2}, seed, tmp_path / "cohort", code=code)
        fit(*cohort, "tiny", TINY, {"steps": 2, "initial": str(weights)}, 1, out, code="same")
        made = json.loads((out / "manifest.json").read_text())
        assert made["initial"] == sha256_file(weights)


@pytest.mark.parametrize(
    ("windows", "splits", "message"),
    [
        (
            {"bin_size": 10.0, "after": 0.5, "history": 0.05},
            {},
            "bin_size: found 20 ms; accepted: a fit in bins of 10 ms",
        ),
        ({}, {"seed": 2}, "held-in units: found others of session three"),
    ],
)
def test_weights_of_other_bins_or_for_other_units_are_refused(
    tmp_path: Path, windows: dict, splits: dict, message: str
) -> None:
    """Their shapes fit."""
    made = [recording("three", 5, units=7, trials=24)]
    before = TinyModel(Config(steps=1), 0)
    before.fit(open_cohort(*write_cohort(tmp_path / "a", made=made), fitting=True), Run(tmp_path / "a"))
    write_arrays(tmp_path / "w.safetensors", before.state())
    data = open_cohort(
        *write_cohort(tmp_path / "b", replace(WINDOWS, **windows), replace(SPLITS, **splits), made), fitting=True
    )
    with pytest.raises(InputError, match=message):
        TinyModel(Config(initial=str(tmp_path / "w.safetensors")), 0).fit(data, Run(tmp_path / "b"))


def test_a_fit_is_not_made_again_when_what_it_starts_from_lies_elsewhere(cohort: Cohort, tmp_path: Path) -> None:
    """A folder of results that was moved, or is given by another path."""
    before = TinyModel(Config(steps=1), 0)
    before.fit(open_cohort(*cohort, fitting=True), Run(tmp_path))
    times = []
    for name in ("here", "there"):
        write_arrays(tmp_path / name, before.state())
        fit(*cohort, "tiny", TINY, {"steps": 2, "initial": str(tmp_path / name)}, 1, tmp_path / "fine", code="same")
        times.append((tmp_path / "fine" / "manifest.json").stat().st_mtime_ns)
    assert times[0] == times[1]


@pytest.mark.parametrize("freeze", [("*",), ("shared.*", "one/*")])
def test_a_session_of_which_nothing_is_left_to_train_is_refused_in_a_line(
    data: FitData, tmp_path: Path, freeze: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"freeze: found .*; accepted: patterns that leave something to train"):
        TinyModel(Config(freeze=freeze), 0).fit(data, Run(tmp_path))


@pytest.mark.parametrize("session", ["train", "items", "day.1"])
def test_a_session_that_torch_cannot_name_is_refused_in_a_line(tmp_path: Path, session: str) -> None:
    made = open_cohort(*write_cohort(tmp_path, made=[recording(session, trials=12)]), fitting=True)
    with pytest.raises(InputError, match=f"session: found '{session}'"):
        TinyModel(Config(), 0).fit(made, Run(tmp_path / "run"))


def test_weights_of_another_shape_are_refused(data: FitData, tmp_path: Path) -> None:
    other = TinyModel(Config(factors=4), 0)
    other.fit(data, Run(tmp_path / "a"))
    write_arrays(tmp_path / "w.safetensors", other.state())
    with pytest.raises(InputError, match=r"shared.weight: found shape \(4, 4\); accepted: shape \(3, 3\)"):
        TinyModel(Config(initial=str(tmp_path / "w.safetensors")), 0).fit(data, Run(tmp_path / "b"))
