"""Fitting one session: what to learn from, which strength, and what to write down about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm.crossvalidation import log_likelihood
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, Solution
from pipeline_lib.models.glm.frames import signal_values
from pipeline_lib.models.glm.inference import infer
from pipeline_lib.models.glm.observation import observation_model
from pipeline_lib.models.glm.optimiser import STATUS, UNKNOWN
from pipeline_lib.models.glm.path import Path, default_strengths, follow
from pipeline_lib.models.glm.penalties import Penalty
from pipeline_lib.models.glm.settings import allowed_couplings

if TYPE_CHECKING:
    from pipeline_lib.models.glm.model import CoupledGLM
    from pipeline_lib.training.run import Run

REMEMBERED = 8
SPLINES = 10


def train_session(
    model: CoupledGLM, data: FitData, session: str, run: Run, saved: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Fit one session and return what was learned (see `CoupledGLM`); `saved` is the path of a checkpoint, or empty."""
    config, train = model.config, data.samples(session, "train")
    learned = _describe(model, data, session)
    dtype = torch.float64 if config.dtype == "float64" else torch.float32
    observation = observation_model(config.observation, config.link, config.dispersion)
    design = Design(model.read(data, session, train, learned, merge=True)[0], dtype, model.device, config.memory)
    penalty = Penalty(config.regulariser, config.ratio)
    problem = Problem(design, observation, *_penalised(model, learned, design), penalty)
    strengths = default_strengths(problem) if config.strength == "auto" else np.array([float(config.strength)])
    path = Path.from_arrays(saved, model.device) if saved else Path(strengths)

    score = None
    if len(path.strengths) > 1:
        unseen = model.read(data, session, data.validation(session), learned, merge=True)[0]
        held = Design(unseen, dtype, model.device, config.memory)
        seen = float(held.total_weight().sum())

        def score(coefficients: torch.Tensor) -> float:
            """Mean log-likelihood of a validation bin; a rate that is not finite is infinitely bad."""
            mean = float(log_likelihood(held, observation, coefficients).sum()) / max(seen, 1.0)
            return mean if np.isfinite(mean) else -UNKNOWN

    if not saved:
        for note in oddities(problem, learned, data.split.history_bins):
            run.log({"session": session, "stage": "note", "note": note})

    def after_sweep(path: Path) -> None:
        descent = path.descent
        assert descent is not None
        loss = float(descent.value[problem.fitted].mean()) if bool(problem.fitted.any()) else 0.0
        run.progress(
            int(descent.sweep), None, loss, session=session, strength=path.strength, running=len(descent.running)
        )
        done = {f"done/{name}": value for name, value in model.state().items()}
        run.checkpoint(lambda: done | {f"path/{name}": value for name, value in path.arrays().items()})

    def after_strength(strength: float, score: float | None, solution: Solution) -> None:
        row = {"session": session, "stage": "final" if score is None else "path", "strength": strength}
        row |= {"passes": solution.sweeps, "train_loss": float(solution.loss.mean())}
        row |= {"decrement": float(solution.decrement.max()), "converged": int(solution.converged.sum())}
        run.log(row if score is None else row | {"validation_log_likelihood": score})

    solution = follow(
        problem, path, score, config.tolerance, config.max_iterations, REMEMBERED, after_sweep, after_strength
    )
    for unit in range(design.n_receivers):
        status = STATUS[int(solution.status[unit])] if problem.fitted[unit] else "silent: held at its floor"
        row = {"session": session, "stage": "unit", "unit": unit, "status": status}
        run.log(row | {"train_loss": float(solution.loss[unit]), "decrement": float(solution.decrement[unit])})
    learned["coefficients"] = solution.coefficients.cpu().numpy()
    learned["decrement"] = solution.decrement.cpu().numpy()
    learned["strength"] = np.array([path.strength])
    if config.inference:
        found = infer(problem, solution, path.strength)
        # What was not fitted is fixed at zero: no error, nothing to discover.
        learned["standard_errors"] = np.nan_to_num(found.standard_errors, nan=0.0)
        learned["p"] = np.nan_to_num(found.p, nan=1.0)
    return learned


def _describe(model: CoupledGLM, data: FitData, session: str) -> dict[str, np.ndarray]:
    """What does not depend on the fit: inputs, kernels, masks, scales of the signals."""
    config, train, bin_size = model.config, data.samples(session, "train"), data.split.bin_size
    senders = data.heldin(session) if config.coupling != "none" or config.self_history else np.empty(0, np.int64)
    trials = bool((train["trial"] >= 0).any())
    splines = config.baseline if config.baseline is not None else SPLINES * trials
    learned = {
        "kernel": config.kernel(int(np.ceil(config.history * 1000 / bin_size - 1e-9))),
        "senders": senders,
        "allowed": allowed_couplings(config, data.trains[session].units, senders),
        "splines": np.array([splines]),
        "window": np.array([int(train["bins"].max())]),
        "bin_size": np.array([bin_size]),
    }
    if config.signals:
        per_bin = data.split.bin_ticks
        starts, bins = train["start_tick"].to_numpy(np.int64), train["bins"].to_numpy(np.int64)
        offsets = np.arange(bins.sum()) - np.repeat(np.cumsum(bins) - bins, bins)
        values = signal_values(data, session, config.signals, np.repeat(starts, bins) + offsets * per_bin)
        seen = np.isfinite(values)
        mean = np.where(seen, values, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
        variance = np.where(seen, (values - mean) ** 2, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
        learned |= {"signal_mean": mean, "signal_scale": np.where(variance > 0, np.sqrt(variance), 1.0)}
        learned["signal_missing"] = 1.0 - seen.mean(0)
    return learned


def _penalised(model: CoupledGLM, learned: dict[str, np.ndarray], design: Design) -> tuple[torch.Tensor, torch.Tensor]:
    """Which coefficients each unit has (units, columns - 1), and the relative penalty of each column."""
    couplings = np.repeat(learned["allowed"].T, design.n_basis, axis=1)
    features = np.ones((design.n_receivers, design.n_features), dtype=bool)
    scale = np.ones(design.columns - 1)
    scale[: design.n_features] = model.config.feature_penalty
    return torch.from_numpy(np.concatenate([features, couplings], axis=1)), torch.from_numpy(scale)


def oddities(problem: Problem, learned: dict[str, np.ndarray], given_history: int) -> list[str]:
    """What is unusual about these data and how it was treated, a sentence each."""
    design, notes = problem.design, []
    silent = (~problem.fitted).nonzero()[:, 0].tolist()
    if silent:
        notes.append(
            f"units {silent}: no spike in the training part; no coupling, rate held at half a spike in all of it"
        )
    constant = problem.constant.nonzero()[:, 0].tolist()
    senders = sorted(
        {
            int(design.data.senders[(c - design.n_features) // design.n_basis])
            for c in constant
            if c >= design.n_features
        }
    )
    if senders:
        notes.append(f"units {senders}: silent as inputs; their couplings are zero")
    features = [column for column in constant if column < design.n_features]
    if features:
        notes.append(f"features {features}: constant; their weights are zero")
    rank_deficiency = problem.covariance.rank_deficiency()
    if rank_deficiency:
        lost = f"{rank_deficiency} directions of the inputs are not told apart by the data"
        notes.append(f"{lost} (copies, sums of others, more inputs than bins); the ridge shares weight between them")
    window = len(learned["kernel"])
    if given_history < window:
        notes.append(f"windows give {given_history} bins of history, filters have {window}: the rest counts as silence")
    if "signal_missing" in learned and learned["signal_missing"].any():
        notes.append(
            f"signals missing in a share {learned['signal_missing'].round(4).tolist()} of the bins: their mean instead"
        )
    if problem.observation.link == "logistic" and int(design.targets.max()) > 1:
        notes.append("bins with several spikes count as bins with one (Bernoulli)")
    return notes
