"""Predictions that no model has made, in the folder of a fit."""

from pathlib import Path

from pipeline_lib.files import write_json


def name_fit(folder: Path, model: str = "model", seed: int | None = 0) -> Path:
    """Say what the fit in `folder` is called; the folder."""
    write_json(folder / "manifest.json", {"cohort": "cohort", "model": model, "seed": seed})
    return folder
