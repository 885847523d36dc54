"""From windows of a session to the frames a GLM reads: windows that touch become one stretch, none crosses another."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline_lib.models.contract import FitData

BATCHES = 16


@dataclass(frozen=True)
class Frames:
    """Where the bins of some windows lie: stretches of a session end to end, each after `lead` frames of history.

    Attributes
    ----------
    windows : the windows in the order of time: columns of the split's samples, `number` among the samples asked for,
        `frame` the first of its frames; the index is the sample id.
    segments : (k, 2) int64, scored frames of each stretch.
    firsts : (k,) row of `windows` that begins each stretch.
    lead : frames of history before each stretch.
    given : how many of them the windows give; what is before that is silence.
    bin_ticks : ticks a frame.
    """

    windows: pd.DataFrame
    segments: np.ndarray
    firsts: np.ndarray
    lead: int
    given: int
    bin_ticks: int

    def __len__(self) -> int:
        return int(self.segments[-1, 1])

    def stretch(self, frames: np.ndarray) -> np.ndarray:
        """Which stretch each frame (or the history before it) belongs to."""
        return np.searchsorted(self.segments[:, 1], frames, side="right")

    def ticks(self, frames: np.ndarray) -> np.ndarray:
        """First tick of each frame's bin, int64."""
        stretch = self.stretch(frames)
        start = self.windows["start_tick"].to_numpy(np.int64)[self.firsts[stretch]]
        return start + (frames - self.segments[stretch, 0]) * self.bin_ticks

    def places(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row of `windows` and bin in that window of each frame; both -1 in the history."""
        window = np.searchsorted(self.windows["frame"].to_numpy(), frames, side="right") - 1
        scored = frames >= self.segments[self.stretch(frames), 0]
        position = frames - self.windows["frame"].to_numpy()[window]
        return np.where(scored, window, -1), np.where(scored, position, -1)


def lay_frames(data: FitData, samples: pd.DataFrame, lead: int, merge: bool) -> Frames:
    """The frames of `samples`; `merge` joins windows that follow each other without a gap: no history is read twice.

    Of samples of one part that is no leak: what a stretch reads are their own bins and the history of its first window,
    in which no other part is scored (`trains.leakage`). Filters longer than the history that windows give see more of
    the past in a stretch than in a prediction, which joins nothing and has silence there.
    """
    numbered = samples.assign(number=np.arange(len(samples))).sort_values("start_tick", kind="stable")
    start, bins = numbered["start_tick"].to_numpy(np.int64), numbered["bins"].to_numpy(np.int64)
    per_bin = data.split.bin_ticks
    touching = (start[1:] == start[:-1] + bins[:-1] * per_bin) if merge else np.zeros(len(start) - 1, dtype=bool)
    stretch = np.concatenate([[0], np.cumsum(~touching)])
    firsts = np.flatnonzero(np.concatenate([[True], ~touching]))
    lengths = np.bincount(stretch, bins).astype(np.int64)
    ends = np.cumsum(lengths + lead)
    segments = np.stack([ends - lengths, ends], axis=1)
    frame = np.cumsum(bins) - bins + (stretch + 1) * lead
    return Frames(numbered.assign(frame=frame), segments, firsts, lead, data.split.history_bins, per_bin)


def read_frames(data: FitData, session: str, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Counts (frames, units) unsigned of all of them, and which were observed, bool of the same shape."""
    lengths = frames.segments[:, 1] - frames.segments[:, 0]
    stretches = frames.windows.iloc[frames.firsts].assign(bins=lengths)
    counts, observed = [np.empty(0)] * len(lengths), [np.empty(0)] * len(lengths)
    skip, pad = max(frames.given - frames.lead, 0), max(frames.lead - frames.given, 0)
    # Stretches are read padded to the longest of a batch; sorting by length keeps the padding small.
    for batch in np.array_split(np.argsort(lengths, kind="stable"), min(BATCHES, len(lengths))):
        read, seen = data.read(session, stretches.iloc[batch])
        for row, number in enumerate(batch):
            stop = frames.given + lengths[number]
            counts[number] = np.pad(read[row, skip:stop], ((pad, 0), (0, 0)))
            observed[number] = np.pad(seen[row, skip:stop], ((pad, 0), (0, 0)))
    return np.concatenate(counts), np.concatenate(observed)


def read_blocks(
    data: FitData, session: str, frames: Frames, firsts: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and observed (blocks, bins, units) of `bins` frames from each of `firsts` on, of windows that train.

    As in `read_frames` history is real as far as the windows give it; frames beyond a block's stretch mean nothing.
    """
    stretch = frames.stretch(firsts)
    start = frames.ticks(firsts) + frames.given * frames.bin_ticks
    rows = frames.windows.iloc[frames.firsts[stretch]].assign(start_tick=start, bins=max(bins - frames.given, 1))
    counts, observed = (values[:, :bins] for values in data.read(session, rows))
    unknown = firsts[:, None] + np.arange(bins) < (frames.segments[stretch, 0] - frames.given)[:, None]
    counts[unknown] = 0
    observed[unknown] = False
    return counts, observed
