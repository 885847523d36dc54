"""Predictions in the manner of the IBL BrainWideBench (2026): a safetensors file a task, recording and seed.

    {out}/co_smoothing/{recording}/seed_{seed}.safetensors    held-out units in the bins of the window
    {out}/forecasting/{recording}/seed_{seed}.safetensors     all units in the forward bins

Each holds `prediction` float32 [trial, bin, unit] (spikes a bin, NaN past a trial's end), `trial_id` int64 [trial]
(rows of the session's trials, by which the scorer aligns; the window's number in continuous mode) and `unit` int64
[unit] (rows of its units). The scorer itself was not public when this was written: the tensors' names are ours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.files import atomic_file
from pipeline_lib.published import PREDICTIONS, require_undamaged
from pipeline_lib.submission.predictions import rates_of, sessions
from pipeline_lib.trains.splits import Split


def write(
    fit_dir: Path | str, trains_dirs: Sequence[Path | str], split_path: Path | str, out: Path | str, seed: int = 0
) -> None:
    """Write the tasks that a fit's split poses: co-smoothing where units are held out, forecasting where bins are.

    Raises
    ------
    InputError : a split that holds out neither, or missing or damaged predictions.
    """
    from safetensors.numpy import save_file

    require_undamaged(fit_dir, PREDICTIONS)
    split = Split.read(split_path)
    for session in sessions(trains_dirs):
        samples, rates = rates_of(fit_dir, split, session, "test")
        heldout, trial = np.sort(split.heldout[session]), samples["trial"].to_numpy(dtype=np.int64)
        number = np.where(trial < 0, samples.index.to_numpy(dtype=np.int64), trial)
        # The bins to forecast end each trial, wherever that is.
        shown = samples["bins"].to_numpy()[:, None] - split.forward_bins
        position, ahead = np.arange(shown.max(initial=0)), shown + np.arange(split.forward_bins)
        window = np.where((position < shown)[:, :, None], rates[:, position][:, :, heldout], np.nan)
        tasks = {
            "co_smoothing": (window, heldout),
            "forecasting": (np.take_along_axis(rates, ahead[:, :, None], axis=1), np.arange(rates.shape[2])),
        }
        posed = {task: arrays for task, arrays in tasks.items() if arrays[0].size}
        if not posed:
            accepted = "splits.heldout_units or splits.forward above 0"
            raise InputError(f"split of cohort {split.cohort}", session, "no unit and no bin held out", accepted)
        for task, (predicted, unit) in posed.items():
            tensors = {
                "prediction": np.ascontiguousarray(predicted, dtype=np.float32),
                "trial_id": number,
                "unit": unit.astype(np.int64),
            }
            with atomic_file(Path(out) / task / session / f"seed_{seed}.safetensors") as part:
                save_file(tensors, part, metadata={"bin_size_ms": str(split.bin_size), "session": session})
