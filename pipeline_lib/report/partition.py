"""How many windows trained, selected and tested, and how many units were held out, as the page shows it."""

from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.trains.splits import PARTS, Split


@dataclass(frozen=True)
class Partition:
    """The split of a cohort."""

    cohort: str
    sessions: int
    bin_size: float
    """Milliseconds."""
    windows: list[int]
    """Of each of `PARTS`."""
    heldout: int
    """Units, of all sessions."""
    forward: int
    """Bins at the end of each window that are forecast."""

    @classmethod
    def of(cls, path: Path) -> "Partition":
        """Of a split's file. Raises InputError where it is none."""
        split = Split.read(path)
        counts = split.samples["split"].value_counts()
        windows = [int(counts.get(part, 0)) for part in PARTS]
        heldout = sum(map(len, split.heldout.values()))
        return cls(split.cohort, len(split.sessions), split.bin_size, windows, heldout, split.forward_bins)
