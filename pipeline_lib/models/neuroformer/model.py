"""The Neuroformer as a model of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.clock import duration_bins
from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import Couplings
from pipeline_lib.models.neuroformer import settings
from pipeline_lib.models.neuroformer.signals import as_classes, bin_times, classes_of, read_frames
from pipeline_lib.models.torch_model import Layout, TorchModel, public
from pipeline_lib.trains.signals import read_signals
from pipeline_lib.trains.splits import PREDICTED

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.stimulus import Stimulus
    from pipeline_lib.training.batches import Batch, Batches, Windows
    from pipeline_lib.training.run import Run, State
    from pipeline_lib.trains.settings import WindowSettings
    from pipeline_lib.trains.store import Trains


class NeuroformerModel(TorchModel):
    """A generative transformer over spikes (Antoniades et al. 2024).

    What it is told of a bin when its rates are predicted: the spikes of all earlier bins, and, where the settings name
    them, frames and signals up to the end of the bin's window.
    """

    Config = settings.Config
    sees = "past of held-in units"
    of_data = ("frames", "frame_kernel", "signals", "decode")
    config: settings.Config
    network: Neuroformer

    def __init__(self, config: settings.Config, seed: int) -> None:
        super().__init__(config, seed)
        others = [*(["frames"] if config.frames else []), *config.signals]
        if others:
            self.sees = f"past of held-in units, {', '.join(others)}"  # type: ignore[misc]
        self.kept: dict[str, State] = {}
        """Best weights of each of the `objectives`, in the names of `state`."""
        self.frame = (0, 0)
        self.classes: dict[str, dict[str, list[float]]] = {}

    @classmethod
    def check_windows(cls, config: settings.Config, windows: WindowSettings, forward: float) -> None:
        """Times that are whole bins, a past that the windows have, and nothing to forecast."""
        ahead = duration_bins(forward, windows.bin_size, "splits.forward")
        config.check_times(windows.bin_size, windows.history_bins, ahead)

    @classmethod
    def check_data(cls, config: settings.Config, data: FitData) -> None:
        """Frames, signals and labels that are asked for are there."""
        cls(config, seed=0)._check_data(data)

    def build(self, layout: Layout) -> Neuroformer:
        """The network, with weights from torch's generator."""
        from pipeline_lib.models.neuroformer.independent import IndependentNeuroformer
        from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes

        self._check_layout(layout)
        classes = {
            session: {name: len(self.classes.get(session, {}).get(name, ())) for name in self.config.decode}
            for session in layout.units
        }
        network = IndependentNeuroformer if self.config.compat else Neuroformer
        return network(self.config, layout, Shapes(self.frame, classes))

    def initialise(self, windows: dict[str, Windows]) -> None:
        """Start as independent Poisson units at their mean rates, with signals standardised."""
        for session, each in windows.items():
            signals = {"signals": _in_windows(each, "signals")} if self.config.signals else {}
            self.network.head(session).start_at(each.mean_counts(), signals)

    def start(self, data: FitData, windows: dict[str, Windows]) -> None:
        """Start as every network, from other weights, too; then the read-outs that are trained, from these windows."""
        from pipeline_lib.models.neuroformer.regression import start_read_outs

        super().start(data, windows)
        names = [name for name in self.config.decode if f"decode:{name}" in self.config.trained]
        for session, each in windows.items() if names else ():
            start_read_outs(self.network, session, each, names)

    def check_initial(self, given: State, before: Layout) -> None:
        """The classes of each variable must be those that its read-out, taken over, tells apart: they go by place."""
        known = json.loads(given["about"].tobytes())["classes"] if "about" in given else {}
        for session, variables in self.classes.items():
            for name, classes in variables.items():
                others = known.get(session, {}).get(name, classes)
                if others != classes:
                    accepted = f"{classes}, as in its training part"
                    raise InputError(self.config.initial, f"{session}, classes of {name}", others, accepted)

    def learned(self, data: FitData) -> FitData:
        """The data, or a share of their training windows if the settings say so."""
        self._check_data(data)
        return self._share(data)

    def train(self, batches: Batches, validation: Iterable[Batch], run: Run) -> None:
        """Train, and keep the best weights of every objective."""
        from pipeline_lib.models.neuroformer.objectives import ObjectiveTraining

        objectives = self.config.objectives
        training = ObjectiveTraining(objectives, self.network, batches, validation, self.config, self.seed, run)
        training.train()
        self.kept = {
            term: {public(name): value.cpu().numpy() for name, value in weights.items()}
            for term, weights in training.kept.items()
        }

    def best_of(self, term: str) -> Neuroformer:
        """The network with the best weights of one term of the loss; that of the fit where none were kept."""
        import torch

        if term not in self.kept:
            return self.network
        network = self.build(self.layout).to(self.device)
        weights = self.kept[term]
        network.load_state_dict({name: torch.as_tensor(weights[public(name)]) for name in network.state_dict()})
        return network.eval()

    def inputs(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """Frames [S, G, height, width], signals [S, L, signals] and what is read out [S, L, variables]."""
        trains, config = data.trains[session], self.config
        times = bin_times(data.split, samples)
        arrays: dict[str, np.ndarray] = {}
        if config.frames:
            step = duration_bins(config.frame_step, data.split.bin_size, "frame_step")
            back = np.arange(1 - config.frames, 0) * config.frame_step
            grid = np.concatenate([times[:, :1] + back, times[:, ::step]], 1)
            arrays["frames"] = read_frames(self._stimulus(trains), grid)
        middle = times + data.split.bin_size / 2000
        if config.signals:
            arrays["signals"] = read_signals(trains, config.signals, middle, [False] * len(config.signals))
        if config.decode:
            kinds = [kind == "classification" for kind in config.decode.values()]
            values = read_signals(trains, list(config.decode), middle, kinds)
            labels = self.classes[session]
            known = {place: np.array(labels[name]) for place, name in enumerate(config.decode) if name in labels}
            arrays["targets"] = as_classes(values, known)
        return arrays

    def tables(self, data: FitData) -> dict[str, pd.DataFrame]:
        """`scores`: exact bits per spike of the tokens, and of what is read out; `tokens`: how many there were and
        what a limit cut off; `decoding`: what was read out of each window; `attention`: who looks at whom; `generated`
        and its `statistics`, if asked for."""
        import pandas as pd

        from pipeline_lib.models.neuroformer.report import (
            attention_table,
            decoding_table,
            generated_table,
            token_tables,
        )
        from pipeline_lib.models.neuroformer.statistics import generated_statistics, statistics_scores

        scores, tokens = token_tables(self, data, PREDICTED)
        tables = {"tokens": tokens}
        if self.config.decode:
            tables["decoding"], more = decoding_table(self, data, PREDICTED)
            scores = pd.concat([scores, more], ignore_index=True)
        if self.config.probes:
            tables["attention"] = attention_table(self, data, "train")
        if self.config.rollouts:
            tables["generated"] = generated_table(self, data, "test", self.config.rollouts, self.seed)
            tables["statistics"] = generated_statistics(data, tables["generated"], "test")
            rows = pd.DataFrame(statistics_scores(tables["statistics"], "test"))
            scores = pd.concat([scores, rows], ignore_index=True)
        return tables | {"scores": scores}

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """Contrastive features of every window of the samples, `feature_{name}` [S, windows, width]."""
        if not self.config.contrastive:
            return {}
        import torch

        found: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for batch in self.batches(data, session, samples):
                reading = self.network.read(batch, self.network.windows(batch))
                for name, values in self.network.contrast.features(reading.features).items():
                    shaped = values.view(len(batch.counts), -1, values.shape[1])
                    found.setdefault(f"feature_{name}", []).append(shaped.float().cpu().numpy())
        longest = max(each.shape[1] for each in found[next(iter(found))])
        return {name: np.concatenate([_longer(each, longest) for each in values]) for name, values in found.items()}

    def couplings(self, session: str) -> Couplings | None:
        """What a spike of each unit adds to the log-rates, by trial; see `connectivity.probed_couplings`."""
        if not self.config.probes:
            return None
        from pipeline_lib.models.neuroformer.connectivity import probed_couplings

        filters = probed_couplings(self.network, session, self.config.probes, self.seed)
        return Couplings(filters, self.layout.bin_size, filters.sum(2))

    def state(self) -> State:
        """The weights, the layout, the sizes of what is read and read out; `{weight}@{term}` of the `objectives`."""
        about = json.dumps({"frame": self.frame, "classes": self.classes}, sort_keys=True)
        kept = {f"{name}@{term}": value for term, weights in self.kept.items() for name, value in weights.items()}
        return super().state() | kept | {"about": np.frombuffer(about.encode(), np.uint8)}

    def load_state(self, state: State) -> None:
        """Build the network that `state` describes and give it its weights."""
        about = json.loads(state["about"].tobytes())
        self.frame, self.classes = tuple(about["frame"]), about["classes"]
        self.kept = {
            term: {name.removesuffix(f"@{term}"): value for name, value in state.items() if name.endswith(f"@{term}")}
            for term in self.config.objectives
        }
        super().load_state(state)

    def _check_layout(self, layout: Layout) -> None:
        self.config.check_times(layout.bin_size, layout.history, layout.forward)
        allin = [session for session, units in layout.units.items() if len(layout.heldin[session]) == units]
        if allin and set(self.config.trained) == {"heldout"}:
            raise InputError("config", "loss_terms", "heldout", f"more: no unit of session {allin[0]} is held out")

    def _check_data(self, data: FitData) -> None:
        """Find the sizes of frames and the classes of labels; InputError where a session lacks what is asked for."""
        kernel = self.config.frame_kernel
        asked = [(field, name) for field in ("signals", "decode") for name in getattr(self.config, field)]
        for session in data.sessions:
            where, trains = f"session {session}", data.trains[session]
            if self.config.frames:
                size = self._stimulus(trains).frames.shape[1:]
                if self.frame not in ((0, 0), size):
                    raise InputError(where, "frames", f"{size} pixels", f"{self.frame}, as in the others")
                self.frame = size
                if any(pixels < own for pixels, own in zip(size, kernel, strict=True)):
                    raise InputError(where, "frame_kernel", kernel, f"at most a frame, {size}")
            times, self.classes[session] = bin_times(data.split, data.samples(session, "train")), {}
            for field, name in asked:
                try:
                    read_signals(trains, [name], times[:1, :1], [True])
                    if self.config.decode.get(name) == "classification":
                        self.classes[session][name] = classes_of(trains, name, times).tolist()
                except InputError as error:
                    raise InputError(where, field, f"{name}, {error.found}", error.accepted) from None

    def _stimulus(self, trains: Trains) -> Stimulus:
        if trains.stimulus is None:
            raise InputError(f"session {trains.session}", "frames", "no stimulus", "a recording with stimulus.zarr")
        return trains.stimulus

    def _share(self, data: FitData) -> FitData:
        """The data with a share of the training windows; a larger share holds the windows of a smaller one."""
        if self.config.fraction == 1:
            return data
        rows = data.split.samples
        left_out: list[Any] = []
        for session in data.sessions:
            train = rows.index[(rows["session"] == session) & (rows["split"] == "train")]
            order = np.random.default_rng([self.seed, 7]).permutation(len(train))
            left_out += train[order[max(1, round(self.config.fraction * len(train))) :]].tolist()
        return replace(data, split=replace(data.split, samples=rows.drop(index=left_out)))


def _in_windows(windows: Windows, name: str) -> Tensor:
    """An input [S, L, ...] of all windows in their bins, history included, one after the other: [bins, ...]."""
    import torch

    parts = []
    for batch in windows.pieces():
        values = batch.inputs[name]
        parts.append(values[torch.arange(values.shape[1], device=values.device) < batch.bins[:, None]])
    return torch.cat(parts)


def _longer(values: np.ndarray, windows: int) -> np.ndarray:
    """[S, windows, width], NaN where a batch of shorter samples has no window."""
    missing = windows - values.shape[1]
    return np.pad(values, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan)
