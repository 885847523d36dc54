"""Predictions of a published fit for further parts of its split: what readouts are fitted to."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.files import LOCK, exclusive, sha256_file, sha256_tree, whole_directory, write_json
from pipeline_lib.training.fit import load_fit
from pipeline_lib.training.predictions import write_predictions
from pipeline_lib.training.publication import content_hashes, open_data, read_manifest
from pipeline_lib.training.run import RESUME, Run
from pipeline_lib.trains.settings import MEMORY_BUDGET
from pipeline_lib.trains.splits import PARTS


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
    _check_data(Path(fit_dir), trains_dirs, split_path)
    data = open_data(trains_dirs, split_path, memory_budget)
    fitted = sha256_file(Path(fit_dir) / "manifest.json")
    attributes = {"sees": model.sees, "bin_size": data.split.bin_size, "fit": fitted}
    with exclusive(out / LOCK), whole_directory(out) as writing:
        run = Run(out, "predict")
        with contextlib.closing(run), run.stopping():
            write_predictions(writing / "predictions.zarr", model, data, attributes, run, parts)
        shutil.rmtree(out / RESUME, ignore_errors=True)
        manifest = {"fit": fitted, "parts": list(parts), "sha256": sha256_tree(writing / "predictions.zarr")}
        write_json(writing / "manifest.json", manifest)


def _check_data(fit_dir: Path, trains_dirs: Sequence[Path | str], split_path: Path | str) -> None:
    """Refuse other data than the fit's: in another split, windows that it learned from may be called test."""
    told, accepted = read_manifest(fit_dir) or {}, f"what {fit_dir} was fitted to"
    if sha256_file(split_path) != told["split"]:
        raise InputError(split_path, "content", "another split than the fit's", accepted)
    if content_hashes(trains_dirs) != told["trains"]:
        given = ", ".join(map(str, trains_dirs))
        raise InputError(given, "content", "other spike trains than the fit's", accepted)
