"""What settings name in sessions that are here is looked for before any job: signals, units, times of trials."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import test_preflight

folder, looked_at = test_preflight.folder, test_preflight.looked_at
check, complaint_of = test_preflight._check, test_preflight._complaint


@pytest.fixture
def with_behaviour(folder: Path) -> Path:
    """`b` runs on a wheel, in trials; all of its trials have a time `rt`, and but for one a number `score`."""
    wheel = pd.DataFrame({"time": [0.0, 60.0], "x": [0.0, 1.0], "y": [0.0, 1.0]})
    wheel.to_csv(folder / "wheel.csv", index=False)
    start = np.arange(0, 60, 2.0)
    trials = pd.DataFrame({"start": start, "stop": start + 1, "rt": 0.5, "score": 1.0, "easy": "yes"})
    trials["score"] = trials["score"].astype(str).where(start > 2, "late")
    trials["side"] = np.where(start > 30, "left", "right")
    trials.to_csv(folder / "trials.csv", index=False)
    options = "signals: {wheel: wheel.csv}, trials: trials.csv"
    (folder / "sheet.tsv").write_text(f"session\tsource\tlocation\toptions\nb\ttables\tb.npz\t{options}\n")
    return folder


def test_a_timing_is_a_time_before_anything_is_fitted(with_behaviour: Path, looked_at: list[str]) -> None:
    """`evaluate` refused it, hours later. Of trials that are not scored nobody asks."""
    trials = {"windows": {"after": 0.5}}

    def timed(column: str) -> dict:
        return trials | {"evaluation": {"decoding": {"pace": {"timing": column}}}}

    found = complaint_of(with_behaviour, **timed("side"))
    assert found.startswith("mine.yaml: evaluation: decoding.pace.timing: found 'right'; accepted: a time in every")
    check(with_behaviour, **timed("rt"))
    assert check(with_behaviour, **timed("score")), "trial 0 and 1 are of the training part"
    looked_at.clear()
    check(with_behaviour, **timed("score"))
    assert looked_at == []
    assert "found 'left'" in complaint_of(with_behaviour, **timed("side")) or looked_at == ["b"]


@pytest.mark.parametrize(
    ("model", "settings", "found"),
    [
        ("glm", {"signals": ["weel"]}, "signals: found 'weel'; accepted: did you mean 'wheel'?"),
        ("glm", {"signals": [{"name": "wheel.z"}]}, "signals: found 'wheel.z'; accepted: one of wheel.x, wheel.y"),
        ("glm", {"signals": [{"name": "trials.side", "history": 0.1}]}, "signals: found 'trials.side'; accepted: a c"),
        ("glm", {"uncoupled": ["0 > 1", "3 > *"]}, "uncoupled: found '3'; accepted: one of 0, 1, 2, or *"),
        ("glm", {"distance": 10}, "distance: found units without x;"),
        ("lfads", {"signals": ["wheel"]}, "signals: found wheel of 2 columns; accepted: one of its columns"),
        ("neuroformer", {"signals": ["wheel/z"]}, "signals: found wheel/z, no such signal; accepted: did"),
        ("neuroformer", {"decode": {"weel/x": "regression"}}, "decode: found weel/x, no such signal; accepted: did"),
        ("neuroformer", {"decode": {"wheel/x": "classification"}}, "decode: found wheel/x, 1 different values; acc"),
        ("neuroformer", {"frames": 2}, "frames: found no stimulus; accepted: a recording with stimulus.zarr"),
    ],
)
def test_what_settings_of_a_model_name_of_a_session_is_there(
    with_behaviour: Path, looked_at: list[str], model: str, settings: dict, found: str
) -> None:
    times = "{past: 0.1, window: 0.1, frame_step: 0.1}"
    (with_behaviour / f"models/{model}.yaml").write_text(times if model == "neuroformer" else "")
    windows = {"mode": "continuous", "bin_size": 20, "history": 0.1}
    complaint = complaint_of(with_behaviour, models={model: settings}, windows=windows)
    assert complaint.startswith(f"mine.yaml: models.{model}, session b: {found}")
    looked_at.clear()
    assert complaint_of(with_behaviour, models={model: settings}, windows=windows) == complaint, "not taken for right"
    own = {"cohorts": {"b": {"model_settings": {model: settings}}}}
    complaint = complaint_of(with_behaviour, models={model: {}}, windows=windows, **own)
    assert complaint.startswith(f"mine.yaml: cohorts.b.model_settings.{model}, session b: {found}")


def test_sessions_are_read_again_for_settings_that_name_something_in_them_alone(
    with_behaviour: Path, looked_at: list[str]
) -> None:
    def seen(**settings: Any) -> set[str]:
        looked_at.clear()
        check(with_behaviour, models={"glm": settings})
        return set(looked_at)

    assert seen(strength=1.0) == {"glm", "b"}
    assert seen(strength=2.0) == {"glm"}
    assert seen(signals=["wheel.x"], uncoupled=["0 > 1"]) == {"glm", "b"}
    assert seen(signals=["wheel.x"], uncoupled=["0 > 1"]) == set()
    assert seen(signals=["wheel.x"], uncoupled=["0 > 1"], strength=1.0) == {"glm"}
