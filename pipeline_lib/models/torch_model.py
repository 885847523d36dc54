"""A network trained by the engine, as a model of the contract.

A new model is two classes: a `Network` (a torch module with a loss and rates) and a `TorchModel` that says how to build
it. Nothing here imports torch until something is fitted, so that settings are checked in an instant.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.initial import check_data, read_initial, times_of, trained_on, weights_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pipeline_lib.models.masked import Masked
    from pipeline_lib.training.batches import Batch, Batches, Windows
    from pipeline_lib.training.network import Network
    from pipeline_lib.training.run import Run, State
    from pipeline_lib.training.settings import TrainingSettings

SESSIONS = "sessions."
PREDICTED = 64
"""Windows predicted at once."""


@dataclass(frozen=True)
class Layout:
    """What a network must know of its data to be built: sizes and names, no spikes. It is part of a model's state.

    >>> layout = Layout(20.0, 50, 0, 0, 3, {"demo": 29}, {"demo": [0, 1]}, {"demo": ["MOs"] * 29})
    >>> layout.units["demo"], layout.bins
    (29, 50)
    """

    bin_size: float
    """Milliseconds."""
    bins: int
    """Of the longest window, history included."""
    history: int
    forward: int
    """Bins at the end of a window that are never inputs."""
    most: int
    """Largest count of a training bin."""
    units: dict[str, int]
    """Units of each session."""
    heldin: dict[str, list[int]]
    """Rows of the units that may be inputs."""
    population: dict[str, list[str]]
    """The population of each unit."""

    @classmethod
    def of(cls, data: FitData, most: int) -> Layout:
        """The layout of a cohort, given the largest count of its training bins."""
        split = data.split
        return cls(
            bin_size=split.bin_size,
            bins=int(split.samples["bins"].max()) + split.history_bins,
            history=split.history_bins,
            forward=split.forward_bins,
            most=most,
            units={session: data.trains[session].n_units for session in data.sessions},
            heldin={session: data.heldin(session).tolist() for session in data.sessions},
            population={session: data.trains[session].units["population"].tolist() for session in data.sessions},
        )


class TorchModel(Model):
    """Fits, predicts, saves and loads a `Network`; a subclass builds it.

    >>> from pipeline_lib.training.settings import TrainingSettings
    >>> class Example(TorchModel):  # docs/examples/shared_gain.py is a whole one
    ...     Config, sees = TrainingSettings, "held-in units, past and future"
    ...     def build(self, layout):
    ...         raise NotImplementedError("a Network of layout.units")
    >>> Example(TrainingSettings(steps=10), seed=0).uses_gpu
    True
    """

    Config: ClassVar[type[TrainingSettings]]
    config: TrainingSettings
    uses_gpu = True
    ensembles: ClassVar[bool] = False
    """Trainings from several seeds can go as one (`training.fit_ensemble`): the network `vectorises`."""
    network: Network
    layout: Layout
    trained_on: State

    def __init__(self, config: TrainingSettings, seed: int) -> None:
        super().__init__(config, seed)
        self.trained_on = {}

    @abstractmethod
    def build(self, layout: Layout) -> Network:
        """A new network; its random weights come from torch's generator, which has been seeded."""

    def initialise(self, windows: dict[str, Windows]) -> None:
        """Set weights of the new network by the training windows of each session; nothing unless overridden."""

    def inputs(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """Further arrays [S, ...] that batches carry in `inputs`; none unless overridden."""
        return {}

    def learned(self, data: FitData) -> FitData:
        """The data as the fit reads them; as they are unless overridden."""
        return data

    def check_initial(self, given: State, before: Layout) -> None:
        """Refuse weights of another fit that mean something else under the same names; nothing unless overridden."""

    def fit(self, data: FitData, run: Run) -> None:
        """Train on the training part and keep the weights that predict the validation part best."""
        from pipeline_lib.training.batches import InOrder
        from pipeline_lib.training.streaming import shuffled

        data = self.learned(data)
        windows, validation = (self.windows(data, part, run) for part in ("train", "validation"))
        self.start(data, windows)
        self.train(shuffled(windows, self.config.batch, self.seed), InOrder(validation, PREDICTED), run)

    def windows(self, data: FitData, part: str, run: Run) -> dict[str, Windows]:
        """The windows of a part, by session."""
        from pipeline_lib.training.streaming import cohort_windows

        return cohort_windows(data, part, self.device, self.inputs, run.memory_budget)

    def start(self, data: FitData, windows: dict[str, Windows]) -> None:
        """Make the network that training starts from; `windows` are those of the training part.

        Raises
        ------
        InputError : a session that torch cannot name its weights by, or `initial` is no fit to start from: of another
            shape, or one that learned from what is to be tested.
        """
        from torch import nn

        from pipeline_lib.training.noise import seed_noise

        for session in data.sessions:
            if "." in session or hasattr(nn.ModuleDict(), session):
                accepted = "an id without dots that no attribute of torch's modules has"
                raise InputError(f"model {type(self).__name__}", "session", repr(session), accepted)
        seed_noise(self.seed)
        path = self.config.initial
        initial: State = {} if path is None else read_initial(path)
        most = max((each.most() for each in windows.values()), default=0)
        # Tables of counts are as long as those it starts from, which take larger counts for the last.
        self.layout = Layout.of(data, most if path is None else _layout(initial).most)
        self.network = self.build(self.layout).to(self.device)
        self.initialise(windows)
        if path is not None:
            self._start_from(path, initial, data)
        self.trained_on = trained_on(data, initial)
        self._freeze()

    def train(self, batches: Batches, validation: Iterable[Batch], run: Run) -> None:
        """Train `network` by its settings; a model that is fitted in stages overrides this."""
        from pipeline_lib.training.engine import Training

        Training(self.network, batches, validation, self.config, self.seed, run).train()

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Rates of the windows, computed in float32 whatever the precision of training."""
        return self._apply(self.network.rates, data, session, samples)

    def latents(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray | None:
        """Latents of the windows [S, T, dimensions], where the network has any."""
        return self._apply(self.network.latents, data, session, samples) if self.network.has_latents else None

    def predict_masked(
        self, data: FitData, session: str, samples: pd.DataFrame, mode: Masked | Literal["causal"], bins: int = 0
    ) -> np.ndarray:
        """Rates of held-in units that the network is not shown: the tests of multi-task NDTs (Zhang et al. 2024).

        Parameters
        ----------
        data, session, samples : as for `predict`.
        mode : `leave_one_out`: each unit from all others. `intra_region`: each from the others of its population.
            `inter_region`: each from the other populations. `causal`: the last `bins` bins from those before.
        bins : how many bins to forecast.

        Returns
        -------
        float32 [S, T, N], NaN where nothing is predicted so.
        """
        import torch

        from pipeline_lib.models.masked import hidden_in_turn

        def masked(batch: Batch) -> Tensor:
            rates = torch.full(batch.counts.shape, torch.nan, device=batch.counts.device)
            population, heldin = np.array(self.layout.population[session]), self.layout.heldin[session]
            for hidden, scored in hidden_in_turn(batch, mode, population, heldin, bins):
                unseen = replace(batch, visible=batch.visible & ~hidden)
                rates = torch.where(scored, self.network.rates(unseen).float(), rates)
            return rates

        return self._apply(masked, data, session, samples, beyond=np.nan)

    def state(self) -> State:
        """The weights, `{session}/name` where they are a session's, the layout as JSON, and `{session}/trained_on`."""
        layout = np.frombuffer(json.dumps(asdict(self.layout), sort_keys=True).encode(), np.uint8)
        weights = {public(name): value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
        return weights | {"layout": layout} | self.trained_on

    def load_state(self, state: State) -> None:
        """Build the network that `state` describes and give it its weights."""
        import torch

        self.layout, self.trained_on = _layout(state), times_of(state)
        self.network = self.build(self.layout).to(self.device)
        names = self.network.state_dict()
        self.network.load_state_dict({name: torch.as_tensor(state[public(name)]) for name in names})

    def batches(self, data: FitData, session: str, samples: pd.DataFrame | str) -> Iterator[Batch]:
        """The windows of a session or of a part of it, in order, `PREDICTED` at a time, for a network that predicts."""
        rows = data.samples(session, samples) if isinstance(samples, str) else samples
        self._check(data, session, rows)
        self.network.eval()
        for start in range(0, len(rows), PREDICTED):
            yield self._windows(data, session, rows.iloc[start : start + PREDICTED]).batch(slice(None))

    def _windows(self, data: FitData, session: str, samples: pd.DataFrame) -> Windows:
        from pipeline_lib.training.batches import Windows

        return Windows(data, session, samples, self.device, self.inputs(data, session, samples))

    def _apply(
        self,
        function: Callable[[Batch], Tensor],
        data: FitData,
        session: str,
        samples: pd.DataFrame,
        beyond: float = 0.0,
    ) -> np.ndarray:
        """What `function` makes of the windows [S, T, ...], float32; `beyond` past the end of a shorter one."""
        import torch

        with torch.inference_mode():
            pieces = [
                function(batch)[:, batch.history :].float().cpu().numpy()
                for batch in self.batches(data, session, samples)
            ]
        shape = len(samples), int(samples["bins"].max()), *pieces[0].shape[2:]
        result = np.full(shape, beyond, np.float32)
        for number, piece in enumerate(pieces):
            result[number * PREDICTED : (number + 1) * PREDICTED, : piece.shape[1]] = piece
        return result

    def _check(self, data: FitData, session: str, samples: pd.DataFrame) -> None:
        """Windows this network can predict: of a session it knows, no longer than those it was built for, in bins like
        those, and of the same units. Of another width or with other units hidden they have the shape of those that it
        was trained on, and rates that mean nothing."""
        who, layout, split = f"model {type(self).__name__}", self.layout, data.split
        if session not in layout.units:
            raise InputError(who, "session", session, f"a session it was fitted to: {', '.join(layout.units)}")
        same = {
            "bin_size": (split.bin_size, layout.bin_size, "ms"),
            "history": (split.history_bins, layout.history, "bins"),
            "units": (data.trains[session].n_units, layout.units[session], "units"),
        }
        for field, (found, fitted, unit) in same.items():
            if found != fitted:
                raise InputError(who, field, f"{found:g} {unit}", f"{fitted:g} {unit}, as in the fit")
        if data.heldin(session).tolist() != layout.heldin[session]:
            hidden = np.setdiff1d(np.arange(layout.units[session]), layout.heldin[session]).tolist()
            others = f"rows {data.heldout(session).tolist()} of session {session}"
            raise InputError(who, "held-out units", others, f"those of the fit: rows {hidden}")
        longest = layout.bins - layout.history
        if samples["bins"].max() > longest:
            raise InputError(who, "bins", samples["bins"].max(), f"windows of at most {longest} bins, as in its split")

    def _start_from(self, path: str, given: State, data: FitData) -> None:
        """Take over the weights that another fit has under the same names."""
        import torch

        before, own = _layout(given), self.network.state_dict()
        check_data(path, given, before, self.layout, data)
        self.check_initial(given, before)
        names = {public(name): name for name in own}
        shared = [name for name in own if not name.startswith(SESSIONS)]
        taken = weights_of(path, given, {name: tuple(own[names[name]].shape) for name in names}, shared)
        self.network.load_state_dict({names[name]: torch.as_tensor(taken[name]) for name in taken}, strict=False)

    def _freeze(self) -> None:
        """Leave the weights whose names match a pattern as they are."""
        weights = {public(name): weight for name, weight in self.network.named_parameters()}
        for pattern in self.config.freeze:
            names = [name for name in weights if fnmatchcase(name, pattern)]
            if not names:
                raise InputError(
                    "config", "freeze", repr(pattern), f"a pattern of weights such as {next(iter(weights))}"
                )
            for name in names:
                weights[name].requires_grad_(False)


def _layout(state: State) -> Layout:
    return Layout(**json.loads(state["layout"].tobytes()))


def public(name: str) -> str:
    """The name of a weight in a model's state: `{session}/name` for a session's own."""
    return name.removeprefix(SESSIONS).replace(".", "/", 1) if name.startswith(SESSIONS) else name
