"""Counts read from the spikes as the fit goes along: the same fit, in bounded memory."""

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm import MODEL
from pipeline_lib.models.glm.settings import Signal
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from tests.models.glm.sessions import BLOCKS, CONFIG, CONTINUOUS, cohort, fitted, recording_of

CHANGES = {
    "history": 0.4,
    "signals": ("speed.forward", Signal("speed.turn", history=0.05)),
    "dtype": "float64",
    "tolerance": 1e-13,
}


@pytest.mark.parametrize("windows", [CONTINUOUS, WindowSettings(bin_size=10.0, align="start", after=1.4)])
def test_streamed_frames_are_the_resident_ones(tmp_path, network_counts, windows):
    recording = recording_of(network_counts)
    recording.observed = np.array([[0.0, 40.0], [43.0, 150.0]])
    data, _ = cohort(tmp_path, recording, windows, BLOCKS if windows is CONTINUOUS else SplitSettings(seed=1))
    config = replace(CONFIG, **CHANGES)
    model, _ = fitted(config, data, tmp_path / "run")
    train, learned = data.samples("net", "train"), model.learned["net"]
    resident, _ = model.read(data, "net", train, learned, merge=True)
    streamed = model.stream(data, "net", train, learned)
    assert (streamed.frames, streamed.n_features, streamed.plain) == (
        resident.frames,
        resident.n_features,
        resident.plain,
    )
    np.testing.assert_array_equal(streamed.segments, resident.segments)
    start, stop = resident.segments[len(resident.segments) // 2]
    lead = np.arange(start - 40, min(stop, start + 500))
    frames = torch.from_numpy(np.stack([lead, np.minimum(lead, lead[50])]))
    for name in ("senders", "targets", "weights", "features", "offset"):
        expected, found = resident.read(name, frames), streamed.read(name, frames)
        if expected is None:
            assert found is None
        else:
            torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("strength", [1e-4, "auto"])
def test_a_streaming_fit_is_the_resident_fit(tmp_path, continuous, strength):
    data, prediction = continuous
    changes = CHANGES if strength != "auto" else {"tolerance": 1e-5}
    config = replace(CONFIG, **changes, strength=strength, inference=strength != "auto")
    resident, _ = fitted(config, data, tmp_path / "resident")
    streamed, _ = fitted(replace(config, memory="stream"), data, tmp_path / "streamed")
    for name, value in resident.learned["net"].items():
        atol = 1e-6 if strength != "auto" else 1e-3
        np.testing.assert_allclose(streamed.learned["net"][name], value, atol=atol, err_msg=name)
    test = prediction.samples("net", "test")
    np.testing.assert_allclose(
        streamed.predict(prediction, "net", test), resident.predict(prediction, "net", test), rtol=1e-2
    )


def test_memory_does_not_grow_with_the_session(tmp_path):
    """The peak while all frames of a session are read, and of one four times as long."""
    peaks = []
    random = np.random.default_rng(0)
    learned = {"kernel": np.eye(10), "senders": np.arange(60), "splines": np.array([0]), "window": np.array([100])}
    for bins in (10_000, 40_000):
        counts = random.poisson(0.02, (bins, 60)).astype(np.uint8)
        data, _ = cohort(tmp_path / str(bins), counts, CONTINUOUS, BLOCKS)
        source = MODEL(CONFIG, 0).stream(data, "net", data.samples("net", "train"), learned)
        assert source.frames > 0.6 * bins
        tracemalloc.start()
        for start, stop in source.segments:
            for first in range(start, stop, 500):
                source.read("targets", torch.arange(first, min(first + 500, stop))[None])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Of sixty units' counts in 30,000 more bins hardly anything stays: the table of windows.
    assert peaks[1] - peaks[0] < 0.1 * 60 * 0.7 * 30_000


PEAK = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from tests.models.glm.sessions import BLOCKS, CONFIG, CONTINUOUS, cohort, fitted

import pipeline_lib.models.glm.training

directory = Path(sys.argv[1])
counts = np.random.default_rng(0).poisson(0.05, (int(sys.argv[2]), 40)).astype(np.uint8)
data, _ = cohort(directory, counts, CONTINUOUS, replace(BLOCKS, heldout_units=0))
del counts
Path("/proc/self/clear_refs").write_text("5")
rss = lambda name: int(dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
                       [name].split()[0]) / 1024
before = rss("VmRSS")
fitted(replace(CONFIG, memory=sys.argv[3], tolerance=1e-5), data, directory / "run")
print(rss("VmHWM") - before)
"""


@pytest.mark.slow
def test_a_streaming_fit_needs_the_same_memory_for_a_longer_session(tmp_path):
    """Peak MB of a process that fits 40 units; counts and spectra of the longer session take over 70 MB more."""

    def peak(bins: int, memory: str) -> float:
        command = [sys.executable, "-c", PEAK, str(tmp_path / f"{bins}{memory}"), str(bins), memory]
        root = Path(__file__).parents[3]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=os.environ)
        return float(done.stdout.split()[-1])

    short, long, resident = peak(60_000, "stream"), peak(360_000, "stream"), peak(360_000, "fast")
    print(f"stream {short:.0f} MB, six times as long {long:.0f} MB, resident {resident:.0f} MB")
    assert long < short + 25 < resident - 50
