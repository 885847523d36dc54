"""The fit of one seed published for other seeds, where nothing in the model depends on the seed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive, sha256_tree, whole_directory, write_json
from pipeline_lib.published import MANIFEST, PREDICTIONS, require_manifest
from pipeline_lib.training.provenance import Stopwatch
from pipeline_lib.training.publication import IDENTITY, KEPT, TABLES, key_of

RUN = "run.json"


def copy_fit(fit_dir: Path | str, seeds: Sequence[int], out_dirs: Sequence[Path | str]) -> None:
    """Write for each seed what fitting it would have given, byte for byte but for run.json, which says what it copies.

    Parameters
    ----------
    fit_dir : folder of a finished fit of a model with `random = False`.
    seeds : of the copies.
    out_dirs : their folders.

    Raises
    ------
    InputError : no finished fit, or not a folder for each seed.
    """
    fit_dir, manifest = Path(fit_dir), require_manifest(fit_dir, "a finished fit")
    if len(seeds) != len(out_dirs):
        raise InputError("copy", "seeds", list(seeds), f"as many as folders ({len(out_dirs)} given)")
    for seed, out in zip(seeds, map(Path, out_dirs), strict=True):
        with exclusive(out / LOCK), whole_directory(out, optional=[TABLES, KEPT]) as writing:
            _copy(fit_dir, manifest, seed, writing)


def _copy(fit_dir: Path, manifest: dict, seed: int, writing: Path) -> None:
    watch = Stopwatch()
    for entry in sorted(fit_dir.glob("[!.]*")):  # what is hidden is of that fit alone
        if entry.is_dir():
            shutil.copytree(entry, writing / entry.name)
        elif entry.name != MANIFEST:
            shutil.copy(entry, writing)
    root = writing / PREDICTIONS / "zarr.json"
    told = json.loads(root.read_text())
    told["attributes"]["seed"] = seed
    root.write_text(json.dumps(told, indent=2))
    run = json.loads((fit_dir / RUN).read_text())
    about = {"device": run["device"], "seed": seed, "code": manifest["code"], "copy_of_seed": manifest["seed"]}
    write_json(writing / RUN, watch.provenance(**about))
    made = {name: manifest[name] for name in IDENTITY} | {"seed": seed}
    hashes = manifest["sha256"] | {PREDICTIONS: sha256_tree(writing / PREDICTIONS)}
    write_json(writing / MANIFEST, manifest | made | {"key": key_of(made), "sha256": hashes})
