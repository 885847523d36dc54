"""Results as others read them. manifest.json declares the folder of a fit complete, and damage has a name.

It holds a hash of what others read there: Zarr would read a lost chunk as no numbers, and one with a flipped bit as
others.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import read_json, sha256_file, sha256_tree

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, WEIGHTS, PREDICTIONS = "manifest.json", "model.safetensors", "predictions.zarr"
ANEW = "what was published (to have it made anew, remove its folder)"


def read_manifest(directory: Path | str, name: str = MANIFEST) -> dict[str, Any] | None:
    """The manifest of a finished result; None where there is none, InputError where it is damaged."""
    path = Path(directory) / name
    return read_json(path, ANEW) if path.is_file() else None


def require_manifest(directory: Path | str, what: str) -> dict[str, Any]:
    """The manifest of a finished result; InputError where there is none, saying `what` the folder should be of."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise InputError(directory, MANIFEST, "no such file", f"the folder of {what}")
    return manifest


def read_parquet(path: Path | str) -> "pd.DataFrame":
    """A table of a result; InputError where it is missing or damaged."""
    import pandas as pd

    if not Path(path).is_file():
        raise InputError(path, "table", "no such file", "a readable Parquet file")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(path, "table", str(error).splitlines()[0], "a readable Parquet file") from error


def require_undamaged(directory: Path | str, name: str) -> None:
    """Raise InputError where a file or folder of a result differs from its hash in the manifest.

    What no manifest knows, such as predictions that were put there by hand, is taken as it is.
    """
    path, hashes = Path(directory) / name, (read_manifest(directory) or {}).get("sha256", {})
    digest = hashes.get(name) if isinstance(hashes, dict) else hashes  # further predictions are all that there is
    if digest is not None and path.exists() and (sha256_tree if path.is_dir() else sha256_file)(path) != digest:
        raise InputError(path, "content", "bytes that do not agree with their hash", ANEW)
