"""What all simulators share: registry, settings, reproducibility, a valid recording."""

import subprocess
import sys

import numpy as np
import pytest

from pipeline_lib.clock import to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.recording import Recording
from pipeline_lib.sources.simulate import check_settings, simulate

SMALL = {
    "eif": {"neurons_per_area": 12, "trials": 3, "coupled": 4},
    "lorenz": {"conditions": 3, "repeats": 4, "units": 7},
    "glm": {"units": 6, "duration": 20.0, "keep_rates": True},
    "glm_factors": {"neurons_per_area": 7, "trials": 3, "coupled": 3, "areas": 3},
    "chaotic_rnn": {"conditions": 2, "repeats": 3, "units": 11, "bins": 20},
    "video": {"units": 13, "duration": 5.0, "hubs": 2, "targets": 3},
}
"""Of each simulator a session in which no other axis is as long as that of the units."""


@pytest.fixture(params=sorted(SMALL))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_same_seed_gives_the_same_recording_and_another_seed_another(name: str) -> None:
    first, again, other = (simulate(name, SMALL[name], seed, "s") for seed in (5, 5, 6))
    assert first.spike_times.tobytes() == again.spike_times.tobytes()
    assert first.spike_units.tobytes() == again.spike_units.tobytes()
    assert first.truth is not None and again.truth is not None
    for key, array in first.truth.arrays.items():
        assert array.tobytes() == again.truth.arrays[key].tobytes(), key
    assert first.spike_times.tobytes() != other.spike_times.tobytes()


def test_a_recording_survives_its_files(name: str, tmp_path) -> None:
    made = simulate(name, SMALL[name], 0, "s")
    made.write(tmp_path / "s")
    read = Recording.read(tmp_path / "s")
    assert np.array_equal(read.spike_times, made.spike_times)
    assert np.array_equal(read.spike_units, made.spike_units)
    assert read.trials.equals(made.trials) and read.units.equals(made.units)
    assert read.truth is not None and made.truth is not None
    assert read.truth.attributes == made.truth.attributes
    assert set(read.truth.arrays) == set(made.truth.arrays)


def test_every_spike_was_observed_and_lies_in_a_trial(name: str) -> None:
    made = simulate(name, SMALL[name], 0, "s")
    ticks, edges = to_ticks(made.spike_times), to_ticks(made.observed)
    interval = np.searchsorted(edges[:, 0], ticks, side="right") - 1
    assert (interval >= 0).all() and (ticks < edges[interval, 1]).all()
    assert made.duration == made.observed[-1, 1]
    if len(made.trials):
        assert np.array_equal(made.observed, made.trials[["start", "stop"]].to_numpy())


def test_truth_has_the_axes_of_the_recording(name: str) -> None:
    made = simulate(name, SMALL[name], 0, "s")
    assert made.truth is not None
    units = list(made.units["unit_id"])
    assert made.truth.attributes["unit_id"] == units
    chosen = made.truth.select_units(units[3:1:-1])
    for key, array in made.truth.arrays.items():
        axes = made.truth.UNIT_AXES.get(key, ())
        assert axes == tuple(axis for axis, size in enumerate(array.shape) if size == len(units)), key
        expected = array
        for axis in axes:
            expected = np.take(expected, [3, 2], axis=axis)
        np.testing.assert_array_equal(chosen.arrays[key], expected)


def test_an_unknown_simulator_or_setting_names_the_nearest() -> None:
    with pytest.raises(InputError, match="'lorenz'"):
        check_settings("lorentz", {})
    with pytest.raises(InputError, match=r"connections.*'connection'"):
        check_settings("eif", {"connections": 0.1})
    with pytest.raises(InputError, match="seed: found -1"):
        simulate("glm", SMALL["glm"], -1, "s")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("eif", {"trials": 0}),
        ("eif", {"trials": 2.5}),
        ("eif", {"trials": True}),
        ("eif", {"connection": -0.1}),
        ("eif", {"connection": float("nan")}),
        ("eif", {"shared_background": 1.5}),
        ("eif", {"coupled": 51}),
        ("eif", {"keep_inputs": 1}),
        ("lorenz", {"steps_per_bin": 3}),
        ("lorenz", {"bin_size": 0.123}),
        ("lorenz", {"bin_size": "20"}),
        ("lorenz", {"dt": 0.1}),
        ("glm", {"duration": 0.0}),
        ("glm", {"duration": 1.0001}),
        ("glm", {"filter_length": 0.01}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, settings: dict) -> None:
    with pytest.raises(InputError) as error:
        check_settings(name, settings)
    assert error.value.field in settings


def test_checking_settings_imports_no_table_library() -> None:
    code = "import sys; from pipeline_lib.sources.simulate import check_settings; check_settings('eif', {})"
    code += "; print([name for name in ('pandas', 'torch', 'zarr', 'scipy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
