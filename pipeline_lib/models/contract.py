"""What every model is given and what it must give back.

A model is one Python file with an attribute ``MODEL`` (a subclass of `Model`) and one YAML file of hyper-parameters.
Nothing here imports torch, so that a model which does without it starts in a fraction of a second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.trains.binning import bin_windows, observed_windows

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.training.run import Run
    from pipeline_lib.trains.settings import WindowSettings
    from pipeline_lib.trains.splits import Split
    from pipeline_lib.trains.store import Trains

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"


class LeakageError(RuntimeError):
    """A model asked for data that would make its score worthless; a fault of the model's code, not of the user.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20), SplitSettings(), cohort="demo")
    >>> FitData({"demo": trains}, split, fitting=True).counts("demo", "test")
    Traceback (most recent call last):
        ...
    pipeline_lib.models.contract.LeakageError: session demo: a model may not read test windows while it is fitted
    """


@dataclass(frozen=True)
class FitData:
    """Counts of the sessions of a cohort, as far as a model may read them.

    Outside the training part the held-out units and the forward bins (the last `split.forward_bins` of a window) are
    hidden: their counts read 0 and their mask False, just as if they had not been recorded. So no model can use a
    held-out unit as an input or to choose a hyper-parameter, and none can see the bins it is asked to forecast.

    Attributes
    ----------
    trains : the spike trains, by session.
    split : which windows train, validate and test, and which units are held out.
    fitting : True during `Model.fit`, when reading a test window raises LeakageError.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20), SplitSettings(heldout_units=5), cohort="demo")
    >>> data = FitData({"demo": trains}, split)
    >>> data.counts("demo", "train").shape  # [windows, bins, units]
    (14, 50, 29)
    >>> bool(data.counts("demo", "test")[:, :, data.heldout("demo")].any())  # never an input
    False
    """

    trains: Mapping[str, Trains]
    split: Split
    fitting: bool = False

    @property
    def sessions(self) -> list[str]:
        """Session ids, sorted."""
        return sorted(self.trains)

    def heldin(self, session: str) -> np.ndarray:
        """Rows of the units that may be inputs, int64, sorted."""
        return np.setdiff1d(np.arange(self.trains[session].n_units), self.heldout(session))

    def heldout(self, session: str) -> np.ndarray:
        """Rows of the units that are only ever targets, int64, sorted."""
        return np.sort(np.asarray(self.split.heldout.get(session, ()), dtype=np.int64))

    def samples(self, session: str, part: str) -> pd.DataFrame:
        """The windows of one part ("train", "validation", "test") of a session; the index is the sample id."""
        return self.split.part(session, part)

    def validation(self, session: str) -> pd.DataFrame:
        """The validation windows of a session, for a model that cannot do without; InputError where there is none."""
        samples = self.samples(session, "validation")
        if len(samples) == 0:
            accepted = "a validation share above 0: this model chooses hyper-parameters by it"
            raise InputError(f"split of cohort {self.split.cohort}", "validation", f"no window in {session}", accepted)
        return samples

    def counts(self, session: str, samples: str | pd.DataFrame) -> np.ndarray:
        """Spikes a bin, 0 wherever `mask` is False.

        Parameters
        ----------
        session : a session id.
        samples : a part, or rows of `samples`.

        Returns
        -------
        Unsigned integers [S, history_bins + T, N], T the bins of the longest window. The first `split.history_bins`
        lie before the window and are never scored.

        Raises
        ------
        LeakageError : a model that is being fitted asks for a test window.
        """
        return self.read(session, samples)[0]

    def mask(self, session: str, samples: str | pd.DataFrame) -> np.ndarray:
        """Which of `counts` may be believed: bool, the same shape, False = not recorded, hidden, or past the window."""
        rows = self._rows(session, samples)
        return self._mask(session, rows, (self.split.samples["split"].loc[rows.index] != TRAIN).to_numpy())

    def read(self, session: str, samples: str | pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """`counts` and `mask` together, for the price of one."""
        return self._counts(session, samples, self.mask(session, samples))

    def targets(self, session: str, samples: str | pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """`read` without the history: what is predicted, [S, T, N]."""
        counts, mask = self.read(session, samples)
        return counts[:, self.split.history_bins :], mask[:, self.split.history_bins :]

    def inputs(self, session: str, samples: str | pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """`read` as a prediction sees it: held-out units and forward bins are hidden in training windows, too.

        A readout whose inputs knew more in training than they will in a test leans on what is not going to be there.
        """
        rows = self._rows(session, samples)
        return self._counts(session, samples, self._mask(session, rows, np.ones(len(rows), dtype=bool)))

    def ahead(self, session: str, samples: str | pd.DataFrame) -> np.ndarray:
        """The bins to forecast, the last `split.forward_bins` of each window: bool [S, T]; False past its end."""
        bins = self._rows(session, samples)["bins"].to_numpy()[:, None]
        position = np.arange(bins.max(initial=0))
        return (position >= bins - self.split.forward_bins) & (position < bins)

    def _counts(self, session: str, samples: str | pd.DataFrame, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = bin_windows(self.trains[session], *self._windows(session, samples))
        return np.multiply(counts, mask, out=counts), mask

    def _mask(self, session: str, rows: pd.DataFrame, hidden: np.ndarray) -> np.ndarray:
        """What was recorded in the windows `rows`, less the held-out units and forward bins of those `hidden` [S]."""
        start, length, bin_ticks = self._windows(session, rows)
        bins = rows["bins"].to_numpy()[:, None]
        end = np.where(hidden[:, None], bins - self.split.forward_bins, bins)
        inside = np.arange(length) - self.split.history_bins < end
        mask = observed_windows(self.trains[session], start, length, bin_ticks) & inside[:, :, None]
        mask[np.ix_(hidden, np.arange(length), self.heldout(session))] = False
        return mask

    def _rows(self, session: str, samples: str | pd.DataFrame) -> pd.DataFrame:
        rows = self.samples(session, samples) if isinstance(samples, str) else samples
        if self.fitting and (self.split.samples["split"].loc[rows.index] == TEST).any():
            raise LeakageError(f"session {session}: a model may not read test windows while it is fitted")
        return rows

    def _windows(self, session: str, samples: str | pd.DataFrame) -> tuple[np.ndarray, int, int]:
        """First tick (history included) of each window, bins of the longest, ticks a bin."""
        rows, history, ticks = self._rows(session, samples), self.split.history_bins, self.split.bin_ticks
        start = rows["start_tick"].to_numpy(dtype=np.int64) - history * ticks
        return start, history + int(rows["bins"].max() if len(rows) else 0), ticks


@dataclass(frozen=True)
class Couplings:
    """Who drives whom, in the log-rate a spike adds.

    Attributes
    ----------
    filters : float32 [sender, receiver, lag], rows of all units; lag k is the effect k + 1 bins after the spike. NaN
        where nothing was fitted (a held-out sender, say).
    bin_size : ms of a lag.
    strength : float32 [sender, receiver], signed: the sum of `filters` over lags.

    Examples
    --------
    >>> filters = np.zeros((2, 2, 3), dtype=np.float32)  # sender, receiver, lag
    >>> filters[0, 1] = [0.5, 0.25, 0.0]  # unit 0 excites unit 1 for two bins
    >>> float(Couplings(filters, 5.0, filters.sum(axis=2)).strength[0, 1])
    0.75
    """

    filters: np.ndarray
    bin_size: float
    strength: np.ndarray


class Model(ABC):
    """The contract. `fit` learns, `state` and `load_state` carry what was learned, `predict` uses nothing else.

    Attributes
    ----------
    Config : frozen dataclass of hyper-parameters, every one with a default; `__post_init__` raises InputError for a
        value that makes no sense.
    sees : what the prediction of a bin may look at, in words that stand beside every score: "nothing", "the trial's
        condition", "past of held-in units", "held-in units, past and future" ...
    uses_gpu : ask the engine for a GPU slot.
    random : whether anything depends on the seed. Where nothing does, the first seed is fitted and the others copied.
    of_data : hyper-parameters that `check_data` looks at.
    device : where tensors live, "cpu" or "cuda"; the engine sets it before `fit`, `load_state` and `predict`.

    Examples
    --------
    >>> class Ones(Model):
    ...     Config, sees = dict, "nothing"
    ...     def fit(self, data, run): pass
    ...     def predict(self, data, session, samples):
    ...         return np.ones((len(samples), samples["bins"].max(), data.trains[session].n_units), dtype=np.float32)
    ...     def state(self): return {}
    ...     def load_state(self, state): pass
    >>> Ones({}, seed=0).couplings("demo") is None
    True
    """

    Config: ClassVar[type]
    sees: ClassVar[str]
    uses_gpu: ClassVar[bool] = False
    random: ClassVar[bool] = True
    of_data: ClassVar[tuple[str, ...]] = ()
    device: str = "cpu"

    def __init__(self, config: Any, seed: int) -> None:
        self.config = config
        self.seed = seed

    @classmethod
    def check_windows(cls, config: Any, windows: WindowSettings, forward: float) -> None:
        """Refuse windows, and `forward` seconds at their end, that hyper-parameters do not go with: before any job.

        InputError names the hyper-parameter, or the key of the others: `windows.history`, `splits.forward`.
        """
        return

    @classmethod
    def check_data(cls, config: Any, data: FitData) -> None:
        """Refuse sessions that hyper-parameters do not go with: before any job if they are here, else before the fit.

        InputError names the hyper-parameter, one of `of_data`, and `session {id}` as the place.
        """
        return

    @abstractmethod
    def fit(self, data: FitData, run: Run) -> None:
        """Learn from the training part; choose hyper-parameters and stop early on the validation part.

        A long fit calls `run.progress`, `run.log` and `run.checkpoint`, and starts from `run.resume()`: killed and
        run again it must give the same bytes as undisturbed.
        """

    @abstractmethod
    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Expected counts a bin: float32 [S, T, N], all units, T the bins of the longest of `samples`.

        The prediction of a window depends on no other window of `samples`. Bins past the end of a shorter window are
        ignored.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Everything learned. What belongs to a session has a key "{session}/name", never a position or a count."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Become the model whose `state` this is."""

    def couplings(self, session: str) -> Couplings | None:
        """The fitted couplings of a session, or None for a model that has none."""
        return None

    def latents(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray | None:
        """Latent trajectories, float32 [S, T, dimensions], or None for a model that has none."""
        return None

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """More arrays by name, float32 [S, ...]: parts of the log-rate, decoded behaviour. Written beside the rates.

        Names that begin with `rates_` are rates, too, [S, T, N], given when something is hidden from the model that the
        name says, NaN for what it does not predict so; evaluation scores them: `rates_leave_one_out` (each held-in unit
        from all others), `rates_intra_region` (from those of its region), `rates_inter_region` (from other regions).
        """
        return {}

    def tables(self, data: FitData) -> dict[str, pd.DataFrame]:
        """Tables by name of what was learned, written as tables/{name}.parquet of the fit.

        The name "scores" is taken: rows session, split, units, metric, value, ci_low, ci_high, n, null, aggregation
        that only the model can compute (a likelihood of tokens), which evaluation adds to its own.
        """
        return {}
