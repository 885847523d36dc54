"""The stages of a fit: terms of the log-rate come in one after the other, and what is settled stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.models.glm_transformer.network import available_terms, weight_group

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.network import GLMTransformer
    from pipeline_lib.models.glm_transformer.settings import Config
    from pipeline_lib.training.run import Run, State


@dataclass(frozen=True)
class Stage:
    """One training: which `terms` the log-rate has, and which groups of weights are `trained`."""

    name: str
    terms: frozenset[str]
    trained: frozenset[str]
    prunes: bool = False
    """Couplings that do not stand a test are dropped first; where all stand it, there is no such stage."""

    def prepare(self, network: GLMTransformer, frozen: frozenset[str]) -> None:
        """Set the network's terms, and which weights require gradients; never those named in `frozen`."""
        network.terms = self.terms
        for name, weight in network.named_parameters():
            weight.requires_grad_(weight_group(name) in self.trained and name not in frozen)


def stages(config: Config) -> list[Stage]:
    """The stages of a fit: response, trials, coupling, history (Xin & Kass 2025), and couplings pruned before it."""
    wanted = available_terms(config)
    terms, trained = set[str](), {"readout", "response"}
    if config.history == "first":
        terms, trained = {"history"}, trained | {"history"}
    made = [Stage("response", frozenset(terms), frozenset(trained))]
    if "trials" in wanted:
        terms, trained = terms | {"trials"}, (trained - {"response"}) | {"encoder", "decoder"}
        made.append(Stage("trials", frozenset(terms), frozenset(trained)))
    if "coupling" in wanted:
        terms, trained = terms | {"coupling"}, (trained - {"encoder"}) | {"coupling"}
        made.append(Stage("coupling", frozenset(terms), frozenset(trained)))
        if config.prune is not None:
            made.append(Stage("pruned", frozenset(terms), frozenset(trained), prunes=True))
    if config.history == "last":
        made.append(Stage("history", frozenset(terms | {"history"}), frozenset({"history"})))
    return made


class StageRun:
    """A fit's run as one of its stages sees it: steps count from the start of the fit, checkpoints name the stage."""

    def __init__(self, run: Run, number: int, name: str, before: int, saved: State | None) -> None:
        self.run, self.number, self.name, self.before, self.saved = run, number, name, before, saved
        self.device = run.device
        self.steps = 0 if saved is None else int(saved["stage"][2])

    def progress(self, step: int, total: int | None, loss: float, **extra: Any) -> None:
        """As `Run.progress`."""
        self.steps = step
        self.run.progress(step, total, loss, stage=self.name, **extra)

    def log(self, row: dict[str, Any]) -> None:
        """As `Run.log`."""
        self.run.log({"stage": self.name} | row | {"step": row["step"] + self.before})

    def checkpoint(self, state: State | Callable[[], State], force: bool = False) -> None:
        """As `Run.checkpoint`."""

        def labelled() -> State:
            arrays = state() if callable(state) else state
            return arrays | {"stage": np.array([self.number, self.before, self.steps])}

        self.run.checkpoint(labelled, force)

    def resume(self) -> State | None:
        """The checkpoint of this stage, if there is one."""
        return self.saved


def stage_runs(run: Run, plan: list[Stage]) -> Iterator[tuple[Stage, StageRun]]:
    """The stages that are still to do, from the one that a killed fit was in, each with its run."""
    saved = run.resume()
    first, before = (0, 0) if saved is None else (int(value) for value in saved["stage"][:2])
    for number, stage in enumerate(plan[first:], first):
        view = StageRun(run, number, stage.name, before, saved)
        yield stage, view
        before, saved = before + view.steps, None
