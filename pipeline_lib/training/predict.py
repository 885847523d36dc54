"""Predictions of a published fit beside those it was published with: for further parts of its split, which readouts are
fitted to, and for windows of a recording that it has not seen."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.files import LOCK, exclusive, listed, sha256_file, sha256_tree, whole_directory, write_json
from pipeline_lib.models.contract import FitData
from pipeline_lib.published import MANIFEST, PREDICTIONS, require_manifest
from pipeline_lib.training.fit import load_fit
from pipeline_lib.training.predictions import checked_rates, write_predictions
from pipeline_lib.training.publication import content_hashes, open_data
from pipeline_lib.training.run import RESUME, Run
from pipeline_lib.trains.settings import MEMORY_BUDGET, WindowSettings
from pipeline_lib.trains.splits import PARTS, Split
from pipeline_lib.trains.windows import windows as windows_of

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.trains.store import Trains


def predict(
    fit_dir: Path | str,
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    out_dir: Path | str,
    parts: Sequence[str] = ("train",),
    implementation: str | None = None,
    device: str = "cpu",
    memory_budget: int = MEMORY_BUDGET,
) -> None:
    """Write predictions.zarr of some parts, and manifest.json, which declares it complete.

    Parameters
    ----------
    fit_dir : folder of a published fit.
    trains_dirs, split_path : the data it was fitted to.
    out_dir : folder to write; not that of the fit.
    parts : of "train", "validation" and "test".
    implementation : path of the Python file of a user's own model; default: the registered model that was fitted.
    device : where its tensors live, "cpu" or "cuda".
    memory_budget : bytes of spikes that may be in memory at once.

    Raises
    ------
    InputError : not a published fit, an unknown part, or other data than the fit's.
    """
    for part in parts:
        if part not in PARTS:
            raise InputError("predict", "part", repr(part), suggest(part, PARTS))
    out, model = Path(out_dir), load_fit(fit_dir, implementation, device)
    fit_dir = Path(fit_dir)
    _check_split(fit_dir, split_path)
    if content_hashes(trains_dirs) != require_manifest(fit_dir, "a finished fit")["trains"]:
        given = ", ".join(map(str, listed(trains_dirs)))
        raise InputError(given, "content", "other spike trains than the fit's", f"what {fit_dir} was fitted to")
    data = open_data(trains_dirs, split_path, memory_budget)
    fitted = sha256_file(fit_dir / MANIFEST)
    attributes = {"sees": model.sees, "bin_size": data.split.bin_size, "fit": fitted}
    with exclusive(out / LOCK), whole_directory(out) as writing:
        run = Run(out, "predict")
        with contextlib.closing(run), run.stopping():
            write_predictions(writing / PREDICTIONS, model, data, attributes, run, parts)
        shutil.rmtree(out / RESUME, ignore_errors=True)
        manifest = {"fit": fitted, "parts": list(parts), "sha256": sha256_tree(writing / PREDICTIONS)}
        write_json(writing / MANIFEST, manifest)


def predict_windows(
    fit_dir: Path | str,
    split_path: Path | str,
    trains: "Trains",
    windows: WindowSettings,
    session: str | None = None,
    implementation: str | None = None,
    device: str = "cpu",
) -> "tuple[pd.DataFrame, np.ndarray]":
    """Rates of a published fit in windows of its own choosing, of a recording that it has not seen, say.

    The recording's units are those of the fit's session, in the same order; those that the split holds out stay hidden,
    and so do its forward bins. Nobody checks here whether the fit learned from these windows.

    Parameters
    ----------
    fit_dir : folder of a published fit.
    split_path : the split it was fitted with.
    trains : spike trains of the recording.
    windows : where its windows lie; bins and history as in the split.
    session : the fit's session whose units these are; default: the one of the recording's name.
    implementation : path of the Python file of a user's own model; default: the registered model that was fitted.
    device : where its tensors live, "cpu" or "cuda".

    Returns
    -------
    The windows, as of `pipeline_lib.trains.windows.windows`, and expected spikes a bin, float32 [S, T, N], NaN past the
    end of a shorter window.

    Raises
    ------
    InputError : not a published fit, another split than its own, a session it does not know, other bins or units.
    FitError : rates that are not finite, or negative.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains, convert
    >>> from pipeline_lib.training.fit import fit
    >>> simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="day1").write("recordings/day1")
    >>> convert("recordings/day1", "trains/day1")
    >>> windows = WindowSettings(bin_size=20)
    >>> make_split([Trains.open("trains/day1")], windows, SplitSettings(), "day1").write("day1.parquet")
    >>> fit(["trains/day1"], "day1.parquet", "psth", "psth", {}, seed=0, out_dir="fits/day1/psth/seed0")
    >>> day2 = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 3}, seed=0, session="day2"))
    >>> found, rates = predict_windows("fits/day1/psth/seed0", "day1.parquet", day2, windows, session="day1")
    >>> len(found), rates.shape  # [windows, bins, units]
    (6, (6, 50, 29))
    """
    fit_dir, session = Path(fit_dir), session or trains.session
    model, split = load_fit(fit_dir, implementation, device), Split.read(split_path)
    _check_split(fit_dir, split_path)
    if session not in split.sessions:
        accepted = f"a session of the fit, {', '.join(split.sessions[:20])} (whose units these are)"
        raise InputError(fit_dir, "session", session, accepted)
    same = {
        "bin_size": (windows.bin_size, split.bin_size, "ms"),
        "history": (windows.history_bins, split.history_bins, "bins"),
        "units": (trains.n_units, _units(fit_dir, session), f"units of session {session}"),
    }
    for field, (found, fitted, unit) in same.items():
        if found != fitted:
            raise InputError(f"session {trains.session}", field, f"{found:g}", f"{fitted:g} {unit}, as in the fit")
    samples = windows_of(trains, windows)
    asked = samples.assign(session=session, split="test")
    data = FitData({session: replace(trains, session=session)}, replace(split, samples=asked))
    return samples, checked_rates(model, data, session, asked)


def _units(fit_dir: Path, session: str) -> int:
    """How many units a fit's session has."""
    import zarr

    return int(zarr.open_group(str(fit_dir / PREDICTIONS), mode="r")[f"{session}/rates"].shape[2])


def _check_split(fit_dir: Path, split_path: Path | str) -> None:
    """Refuse another split than the fit's: windows that it learned from may be called test there."""
    if sha256_file(split_path) != require_manifest(fit_dir, "a finished fit")["split"]:
        raise InputError(split_path, "content", "another split than the fit's", f"what {fit_dir} was fitted to")
