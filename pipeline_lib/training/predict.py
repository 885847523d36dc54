"""Predictions of a published fit for further parts of its split: what readouts are fitted to."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.files import LOCK, exclusive, sha256_file, sha256_tree, whole_directory, write_json
from pipeline_lib.models.contract import FitData
from pipeline_lib.training.fit import load_fit
from pipeline_lib.training.predictions import write_predictions
from pipeline_lib.training.run import RESUME, Run
from pipeline_lib.trains.splits import PARTS, Split
from pipeline_lib.trains.store import Trains


def predict(
    fit_dir: Path | str,
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    out_dir: Path | str,
    parts: Sequence[str] = ("train",),
    implementation: str | None = None,
    device: str = "cpu",
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

    Raises
    ------
    InputError : not a published fit, or an unknown part.
    """
    for part in parts:
        if part not in PARTS:
            raise InputError("predict", "part", repr(part), suggest(part, PARTS))
    out, model = Path(out_dir), load_fit(fit_dir, implementation, device)
    opened = [Trains.open(Path(directory)) for directory in trains_dirs]
    data = FitData({trains.session: trains for trains in opened}, Split.read(split_path))
    fitted = sha256_file(Path(fit_dir) / "manifest.json")
    attributes = {"sees": model.sees, "bin_size": data.split.bin_size, "fit": fitted}
    with exclusive(out / LOCK), whole_directory(out) as writing:
        run = Run(out, "predict")
        with contextlib.closing(run), run.stopping():
            write_predictions(writing / "predictions.zarr", model, data, attributes, run, parts)
        shutil.rmtree(out / RESUME, ignore_errors=True)
        manifest = {"fit": fitted, "parts": list(parts), "sha256": sha256_tree(writing / "predictions.zarr")}
        write_json(writing / "manifest.json", manifest)
