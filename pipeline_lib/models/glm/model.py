"""The coupled GLM as a model of the pipeline: fit, predict one bin ahead, say who drives whom.

Model (Truccolo et al., 2005; Pillow et al., 2008), counts y of unit j in bin t, given the past of all inputs::

    eta[t, j] = b[j] + sum_i sum_k F[i, j, k] y[t - 1 - k, i] + baseline_j(time in the window) + signals[t] . g[j]
    y[t, j] ~ Poisson(exp(eta[t, j]))                                   (or another observation model and link)

Filters F are sums of basis functions. Held-out units are fitted but drive nobody.
torch is imported when a fit or a prediction begins, not with this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.by_session import by_session, joined
from pipeline_lib.models.contract import Couplings, FitData, Model
from pipeline_lib.models.glm import settings
from pipeline_lib.models.glm.frames import Frames, lay_frames, read_frames
from pipeline_lib.models.glm.inputs import Inputs, signal_values
from pipeline_lib.models.glm.settings import allowed_couplings

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.glm.data import Data, Source
    from pipeline_lib.training.run import Run
    from pipeline_lib.trains.settings import WindowSettings


class CoupledGLM(Model):
    """See the module. What is learned, per session, float64 unless said:

    `coefficients` (units, 1 + features + senders x basis) intercept, gains, baseline splines, signals, couplings;
    `kernel` (history bins, basis); `senders` int64; `allowed` (senders, units) bool; `splines` and `window` int64
    (1,), number of baseline splines and bins of the window they span; `conditions` and `signal{k}_...` see
    `inputs`; `refractory` (1,) bins of the last kernel, which is a unit's own, 0: none; `bin_size` ms (1,);
    `strength` (1,) of the penalty; `usual` (populations,) and `gained` (units, populations) see `gain`;
    `dispersion` (units,) where it was estimated; `decrement` (units,) nats a bin that the objective may be above
    its minimum (with a `rank`: of the full fit that is reduced); with `rank`, `channels`, `readout` and `share`,
    see `low_rank.LowRank`; with `inference`, `standard_errors` as `coefficients`, `filter_errors` (senders, units,
    lags) float32 and `p` (senders, units) of "no coupling" (1 where there is none).
    """

    Config = settings.Config
    sees = "past of held-in units"
    uses_gpu = True
    random = False
    of_data = ("signals", "uncoupled", "distance")

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self.learned: dict[str, dict[str, np.ndarray]] = {}
        extras = ["the trial's condition"] if config.condition_baselines else []
        if config.signals:
            extras.append("signals " + ", ".join(signal.name for signal in config.inputs))
        past = "held-in units, past and future" if config.trial_gain else type(self).sees
        self.sees = "; ".join([past, *extras])  # type: ignore[misc]

    @classmethod
    def check_windows(cls, config: settings.Config, windows: WindowSettings, forward: float) -> None:
        """Baselines of conditions, where continuous windows have none by default."""
        if config.condition_baselines and config.baseline is None and windows.mode == "continuous":
            raise InputError("config", "condition_baselines", True, settings.WITH_BASELINE)

    @classmethod
    def check_data(cls, config: settings.Config, data: FitData) -> None:
        """Signals, events, units and positions that are named are there."""
        for session in data.sessions:
            for signal in config.inputs:
                signal_values(data, session, signal.name, np.empty(0, np.int64))
            try:
                allowed_couplings(config, data.trains[session].units, data.heldin(session))
            except InputError as error:
                raise InputError(f"session {session}", error.field, error.found, error.accepted) from None

    def fit(self, data: FitData, run: Run) -> None:
        """Session after session; a restart goes on in the middle of a strength."""
        from pipeline_lib.models.glm.training import train_session

        saved = run.resume() or {}
        done = {name.removeprefix("done/"): value for name, value in saved.items() if name.startswith("done/")}
        self.load_state(done)
        path = {name.removeprefix("path/"): value for name, value in saved.items() if name.startswith("path/")}
        for session in data.sessions:
            if session not in self.learned:
                self.learned[session] = train_session(self, data, session, run, path)
                path = {}

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Expected counts, each bin given the real past; forecast bins take expected counts for the past they lack."""
        from pipeline_lib.models.glm.prediction import expected_counts

        self._check(data, session)
        return expected_counts(self, data, session, samples)

    def _check(self, data: FitData, session: str) -> None:
        """A session that was fitted, in its bins and of its units: of other bins, filters would have other lags."""
        if session not in self.learned:
            raise InputError("model GLM", "session", session, f"a session it was fitted to: {', '.join(self.learned)}")
        learned, units = self.learned[session], data.trains[session].n_units
        found, fitted = data.split.bin_size, float(learned["bin_size"][0])
        if found != fitted:
            raise InputError("model GLM", "bin_size", f"{found:g} ms", f"{fitted:g} ms, as in the fit")
        if units != len(learned["coefficients"]):
            raise InputError("model GLM", "units", units, f"{len(learned['coefficients'])}, as in the fit")

    def state(self) -> dict[str, np.ndarray]:
        """What was learned, keys `{session}/name`."""
        return joined(self.learned)

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.learned = by_session(state)

    def couplings(self, session: str) -> Couplings:
        """Filters by sender, receiver and lag; the diagonal is a unit's own history, 0 where no coupling is allowed."""
        learned = self.learned[session]
        kernel, senders = learned["kernel"], learned["senders"]
        units = len(learned["coefficients"])
        filters = np.full((units, units, len(kernel)), np.nan, dtype=np.float32)
        if len(senders):
            weights = learned["coefficients"][:, -len(senders) * kernel.shape[1] :]
            filters[senders] = np.einsum("jib,kb->ijk", weights.reshape(units, len(senders), -1), kernel)
        return Couplings(filters, float(learned["bin_size"][0]), filters.sum(axis=2))

    def coupling_table(self, session: str, units: pd.DataFrame) -> pd.DataFrame:
        """A row a coupling (see `inference.coupling_table`), with p and q if the fit made them; `units`: the table."""
        from pipeline_lib.models.glm.inference import coupling_table

        learned, found = self.learned[session], self.couplings(session)
        allowed = np.zeros(found.strength.shape, dtype=bool)
        allowed[learned["senders"]] = learned["allowed"]
        p = None
        if "p" in learned:
            p = np.full(found.strength.shape, np.nan)
            p[learned["senders"]] = np.where(learned["allowed"], learned["p"], np.nan)
            np.fill_diagonal(p, np.nan)  # a unit's own history is no coupling, and no part of the family of tests
        return coupling_table(found.filters, found.bin_size, units, p, allowed)

    def tables(self, data: FitData) -> dict[str, pd.DataFrame]:
        """Couplings, filters, basis and an excerpt of the inputs, see `tables.tables_of`."""
        from pipeline_lib.models.glm.tables import tables_of

        return tables_of(self, data)

    def read(
        self, data: FitData, session: str, samples: pd.DataFrame, learned: dict[str, np.ndarray], merge: bool
    ) -> tuple[Data, Frames]:
        """What the engine fits or predicts (counts, weights, dense columns), and which frames these are."""
        import torch

        from pipeline_lib.models.glm.data import Data

        frames = lay_frames(data, samples, len(learned["kernel"]), merge)
        counts, seen = read_frames(data, session, frames)
        everything = np.arange(len(frames))
        features = Inputs(data, session, self.config.inputs, learned).columns(frames, everything)
        inputs = Data(
            counts=torch.from_numpy(counts),
            segments=frames.segments,
            kernel=learned["kernel"],
            senders=learned["senders"],
            receivers=np.arange(counts.shape[1]),
            features=None if features is None else torch.from_numpy(features),
            weights=None if seen[frames.places(everything)[1] >= 0].all() else torch.from_numpy(seen),
        )
        return inputs, frames

    def stream(self, data: FitData, session: str, samples: pd.DataFrame, learned: dict[str, np.ndarray]) -> Source:
        """As `read` with windows merged, for training windows, but read anew in every pass."""
        from pipeline_lib.models.glm.stream import StreamedData

        frames = lay_frames(data, samples, len(learned["kernel"]), merge=True)
        inputs = Inputs(data, session, self.config.inputs, learned)

        def features_of(chosen: np.ndarray) -> np.ndarray | None:
            return inputs.columns(frames, chosen)

        kernel, senders = learned["kernel"], learned["senders"]
        return StreamedData(data, session, frames, kernel, senders, features_of, len(inputs.names()))
