"""Rates averaged over the seeds of a model: one prediction more, which is scored like that of a fit.

The mean of several seeds' rates is often closer to the data than any of them: what each has made of chance differs, and
cancels. It is what papers and benchmarks call an ensemble. Only rates have a mean that means something: latents of two
seeds lie in other coordinates, and so the average has none of what else a fit predicts.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.parts import MASKED
from pipeline_lib.evaluation.predictions import open_undamaged
from pipeline_lib.evaluation.settings import AVERAGED
from pipeline_lib.files import LOCK, exclusive, sha256_file, sha256_tree, whole_directory, write_json
from pipeline_lib.published import MANIFEST, PREDICTIONS, require_manifest

SAME = ("cohort", "model", "implementation", "config", "trains", "split", "parts")
"""What a manifest says, of a fit or of further predictions, in which the seeds of a model do not differ."""


def average(fit_dirs: Sequence[Path | str], out_dir: Path | str) -> None:
    """Write predictions.zarr, the mean of the rates of a model's seeds, and manifest.json, whole or not at all.

    The store is as that of a fit, without latents, couplings and whatever else is no rate. Windows are read chunk by
    chunk. The same predictions give the same bytes.

    Parameters
    ----------
    fit_dirs : folders of the fits, or of their further predictions (see `pipeline_lib.training.predict`), each named
        after its seed.
    out_dir : folder to write.

    Raises
    ------
    InputError : fewer than two, one of them twice, one that is not finished or damaged, or not seeds of one model and
        cohort.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains, convert
    >>> simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo").write("recordings/demo")
    >>> convert("recordings/demo", "trains/demo")
    >>> split = make_split([Trains.open("trains/demo")], WindowSettings(bin_size=20), SplitSettings(), "demo")
    >>> split.write("demo.parquet")
    >>> from pipeline_lib.training.fit import fit
    >>> fits = ["fits/seed0", "fits/seed1"]
    >>> for seed, folder in enumerate(fits):
    ...     fit(["trains/demo"], "demo.parquet", "psth", "psth", {}, seed, folder)
    >>> average(fits, "fits/mean")
    >>> require_manifest("fits/mean", "an average")["model"]
    'psth:mean'
    """
    folders, out = [Path(directory) for directory in fit_dirs], Path(out_dir)
    names = [folder.name for folder in folders]
    if len(names) < 2 or len({*names}) < len(names):
        raise InputError("average", "fits", names, "at least two seeds of a model, each once")
    manifests = {folder: require_manifest(folder, "a finished fit, or of its predictions") for folder in folders}
    told = {name: value for name, value in manifests[folders[0]].items() if name in SAME}
    _require_same(manifests, SAME)
    stores = {folder: open_undamaged(folder) for folder in folders}
    _require_same({folder: dict(store.attrs) for folder, store in stores.items()}, ("sees", "bin_size"))
    if "model" in told:
        told |= {"model": told["model"] + AVERAGED, "seed": None}
    told["mean_of"] = {folder.name: sha256_file(folder / MANIFEST) for folder in folders}
    about = {name: stores[folders[0]].attrs[name] for name in ("sees", "bin_size")}
    about |= {name: told[name] for name in ("model", "seed", "mean_of") if name in told}
    with exclusive(out / LOCK), whole_directory(out) as writing:
        root = zarr.create_group(str(writing / PREDICTIONS), zarr_format=3, attributes=about)
        for session in sorted(stores[folders[0]].group_keys()):
            _average_session(root.create_group(session), {at: store.get(session, {}) for at, store in stores.items()})
        write_json(writing / MANIFEST, told | {"sha256": {PREDICTIONS: sha256_tree(writing / PREDICTIONS)}})


def _average_session(group: zarr.Group, seeds: dict[Path, Any]) -> None:
    first = next(iter(seeds.values()))
    names = ["sample", *_rates_of(first)]
    shapes = {at: {name: seed[name].shape for name in names if name in seed} for at, seed in seeds.items()}
    _require_same(shapes, names)
    sample = first["sample"][:]
    for at, seed in seeds.items():
        if not np.array_equal(seed["sample"][:], sample):
            raise InputError(at, f"{group.path}/sample", "other windows than another seed's", "seeds of one split")
    group.create_array("sample", data=sample, compressors=first["sample"].compressors)
    for name in names[1:]:
        like = first[name]
        kind = {"chunks": like.chunks, "dtype": like.dtype, "fill_value": like.fill_value}
        mean = group.create_array(name, shape=like.shape, compressors=like.compressors, **kind)
        for start in range(0, like.shape[0], like.chunks[0]):
            rows = slice(start, start + like.chunks[0])
            mean[rows] = np.mean([seed[name][rows] for seed in seeds.values()], axis=0, dtype=np.float64)


def _rates_of(group: zarr.Group) -> list[str]:
    """Paths of the arrays that are rates: of all units, and those of what was hidden from the model in some way."""
    extras = group.get("extras")
    masked = extras.array_keys() if isinstance(extras, zarr.Group) else ()
    return ["rates", *(f"extras/{name}" for name in sorted(masked) if name.startswith(MASKED))]


def _require_same(told: dict[Path, dict[str, Any]], names: Iterable[str]) -> None:
    """Refuse folders that differ in something that the seeds of a model have in common."""
    first, *others = told
    for folder in others:
        for name in names:
            if told[folder].get(name) != told[first].get(name):
                raise InputError(folder, name, told[folder].get(name), f"{told[first].get(name)}, as {first}")
