"""Fitting one session: what to learn from, which strength, and what to write down about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm.crossvalidation import cross_validate, log_likelihood
from pipeline_lib.models.glm.data import Source
from pipeline_lib.models.glm.descent import STATUS, UNKNOWN
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.dispersion import estimate_dispersion
from pipeline_lib.models.glm.engine import Problem, Solution
from pipeline_lib.models.glm.frames import lay_frames
from pipeline_lib.models.glm.gain import own_gains, usual_activity
from pipeline_lib.models.glm.inference import infer
from pipeline_lib.models.glm.inputs import learn, learn_conditions
from pipeline_lib.models.glm.low_rank import low_rank
from pipeline_lib.models.glm.observation import Observation, observation_model
from pipeline_lib.models.glm.path import PATH_TOLERANCE, Path, default_strengths, follow
from pipeline_lib.models.glm.penalties import Penalty
from pipeline_lib.models.glm.settings import WITH_BASELINE, allowed_couplings, lag_bins

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.glm.model import CoupledGLM
    from pipeline_lib.training.run import Run

SPLINES = 10
STREAMED_BINS = 100_000
"""Validation bins that a streaming fit holds together."""


def train_session(
    model: CoupledGLM, data: FitData, session: str, run: Run, saved: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Fit one session and return what was learned (see `CoupledGLM`); `saved` is the path of a checkpoint, or empty."""
    config = model.config
    learned = _describe(model, data, session)
    design = _design(model, _training_source(model, data, session, learned))
    masks = _penalised(model, learned, design)
    observation, dispersion = _observation(model, design, masks, data.heldin(session))
    learned |= dispersion
    problem = Problem(design, observation, *masks, Penalty(config.regulariser, config.ratio))
    if not saved:
        for note in oddities(problem, learned, data.split.history_bins):
            run.log({"session": session, "stage": "note", "note": note})
    path = Path.from_arrays(saved, model.device) if saved else _strengths(model, data, session, problem, run)
    score = None
    if len(path.strengths) > 1:
        score = _validation(model, data, session, learned, observation)

    def after_sweep(path: Path) -> None:
        descent = path.descent
        assert descent is not None
        loss = float(descent.value[problem.fitted].mean()) if bool(problem.fitted.any()) else 0.0
        step = 1 + sum("step" in row for row in run.rows)
        run.log({"session": session, "stage": "pass", "strength": path.strength, "step": step, "loss": loss})
        run.progress(step, None, loss, session=session, strength=path.strength, running=len(descent.running))
        done = {f"done/{name}": value for name, value in model.state().items()}
        run.checkpoint(lambda: done | {f"path/{name}": value for name, value in path.arrays().items()})

    def after_strength(strength: float, score: float | None, solution: Solution) -> None:
        row = {"session": session, "stage": "final" if score is None else "path", "strength": strength}
        row |= {"passes": solution.sweeps, "train_loss": float(solution.loss.mean())}
        row |= {"decrement": float(solution.decrement.max()), "converged": int(solution.converged.sum())}
        run.log(row if score is None else row | {"validation_log_likelihood": score})

    solution = follow(problem, path, score, config.tolerance, config.max_iterations, after_sweep, after_strength)
    _log_units(problem, solution, session, run)
    learned["coefficients"] = solution.coefficients.cpu().numpy()
    if config.rank is not None:
        learned |= _through_channels(problem, solution, config.rank, path.strength, session, run)
    learned["decrement"] = solution.decrement.cpu().numpy()
    learned["strength"] = np.array([path.strength])
    return learned | (_inference(problem, solution, path.strength) if config.inference else {})


def _log_units(problem: Problem, solution: Solution, session: str, run: Run) -> None:
    """How the fit of each unit ended."""
    for unit in range(problem.design.n_receivers):
        status = STATUS[int(solution.status[unit])] if problem.fitted[unit] else "silent: held at its floor"
        row = {"session": session, "stage": "unit", "unit": unit, "status": status}
        run.log(row | {"train_loss": float(solution.loss[unit]), "decrement": float(solution.decrement[unit])})


def _inference(problem: Problem, solution: Solution, strength: float) -> dict[str, np.ndarray]:
    """Errors and p of `infer`. What was not fitted is fixed at zero: no error, nothing to discover."""
    found = infer(problem, solution, strength)
    return {
        "standard_errors": np.nan_to_num(found.standard_errors, nan=0.0),
        "filter_errors": np.nan_to_num(found.filter_errors, nan=0.0).astype(np.float32),
        "p": np.nan_to_num(found.p, nan=1.0),
    }


def _through_channels(
    problem: Problem, solution: Solution, rank: int, strength: float, session: str, run: Run
) -> dict[str, np.ndarray]:
    """Coefficients whose couplings have this rank, and the channels: see `low_rank.LowRank`."""
    found = low_rank(problem, solution, rank, strength)
    row = {"session": session, "stage": "rank", "train_loss": float(found.loss.mean())}
    run.log(row | {"share": float(found.share[-1])})
    named = {"coefficients": found.coefficients, "channels": found.channels, "readout": found.readout}
    return {name: value.cpu().numpy() for name, value in named.items()} | {"share": found.share}


def _describe(model: CoupledGLM, data: FitData, session: str) -> dict[str, np.ndarray]:
    """What does not depend on the fit: inputs, kernels, masks, scales of the signals."""
    config, train, bin_size = model.config, data.samples(session, "train"), data.split.bin_size
    senders = data.heldin(session) if config.coupling != "none" or config.self_history else np.empty(0, np.int64)
    trials = bool((train["trial"] >= 0).any())
    splines = config.baseline if config.baseline is not None else SPLINES * trials
    if config.condition_baselines and not splines:
        raise InputError("config", "condition_baselines", True, WITH_BASELINE)
    history, refractory = (lag_bins(seconds, bin_size) for seconds in (config.history, config.refractory))
    learned = {
        "kernel": config.kernel(history, refractory),
        "refractory": np.array([refractory]),
        "senders": senders,
        "allowed": allowed_couplings(config, data.trains[session].units, senders),
        "splines": np.array([splines]),
        "window": np.array([int(train["bins"].max())]),
        "bin_size": np.array([bin_size]),
    }
    if config.condition_baselines:
        learned["conditions"] = learn_conditions(train)
    if config.trial_gain:
        learned |= {"usual": usual_activity(data, session), "gained": own_gains(data, session)}
    return learned | learn(data, session, config.inputs, lay_frames(data, train, 0, merge=True))


def _training_source(model: CoupledGLM, data: FitData, session: str, learned: dict[str, np.ndarray]) -> Source:
    train = data.samples(session, "train")
    if model.config.memory == "stream":
        return model.stream(data, session, train, learned)
    return model.read(data, session, train, learned, merge=True)[0]


def _design(model: CoupledGLM, source: Source) -> Design:
    dtype = torch.float64 if model.config.dtype == "float64" else torch.float32
    return Design(source, dtype, model.device, "fast" if model.config.memory == "fast" else "low")


def _observation(
    model: CoupledGLM, design: Design, masks: tuple[torch.Tensor, torch.Tensor], heldin: np.ndarray
) -> tuple[Observation, dict[str, np.ndarray]]:
    """The observation model, with the dispersion of each unit's counts around a Poisson fit if it is asked for."""
    config = model.config
    if config.observation != "negative_binomial" or config.dispersion != "auto":
        given = 1.0 if config.dispersion == "auto" else float(config.dispersion)
        return observation_model(config.observation, config.link, given), {}
    poisson = Problem(design, observation_model("poisson"), *masks)
    # A weak one: the third from the end, or the only one where no unit fired.
    strength = default_strengths(poisson, heldin)[-3:][0] if config.strength == "auto" else config.strength
    solution = poisson.solve(float(strength), tolerance=PATH_TOLERANCE, max_sweeps=config.max_iterations)
    dispersion = estimate_dispersion(design, poisson.observation, solution.coefficients)
    return observation_model(config.observation, config.link, dispersion), {"dispersion": dispersion.cpu().numpy()}


def _strengths(model: CoupledGLM, data: FitData, session: str, problem: Problem, run: Run) -> Path:
    """The strengths to try; a single one where it is given or folds of the training part have chosen it."""
    config = model.config
    if config.strength != "auto":
        return Path(np.array([float(config.strength)]))
    strengths = default_strengths(problem, data.heldin(session))
    if config.selection == "validation" or len(strengths) == 1:
        return Path(strengths)
    found = cross_validate(problem, strengths, config.folds, PATH_TOLERANCE, config.max_iterations, run.stop_if_asked)
    # Held-out units may be fitted, but have no say in what is chosen.
    scores = found.scores[:, data.heldin(session)].mean(axis=1)
    for strength, score in zip(found.strengths, scores, strict=True):
        run.log({"session": session, "stage": "folds", "strength": strength, "validation_log_likelihood": score})
    return Path(found.strengths[[int(np.argmax(scores))]])


def _validation(
    model: CoupledGLM, data: FitData, session: str, learned: dict[str, np.ndarray], observation: Observation
) -> Callable[[torch.Tensor], float]:
    """Mean log-likelihood of a validation bin, for coefficients; a rate that is not finite is infinitely bad."""
    samples = data.validation(session)
    merge = not data.split.forward_bins  # which every single window hides at its end

    def designs() -> Iterator[Design]:
        stream = model.config.memory == "stream"
        parts = max(1, -(-int(samples["bins"].sum()) // STREAMED_BINS)) if stream else 1
        for rows in np.array_split(np.arange(len(samples)), min(parts, len(samples))):
            part: pd.DataFrame = samples.iloc[rows]
            yield _design(model, model.read(data, session, part, learned, merge)[0])

    kept = None if model.config.memory == "stream" else list(designs())

    def score(coefficients: torch.Tensor) -> float:
        total, seen = 0.0, 0.0
        for design in designs() if kept is None else kept:
            total += float(log_likelihood(design, observation, coefficients).sum())
            seen += float(design.total_weight().sum())
        return total / max(seen, 1.0) if np.isfinite(total) else -UNKNOWN

    return score


def _penalised(model: CoupledGLM, learned: dict[str, np.ndarray], design: Design) -> tuple[torch.Tensor, torch.Tensor]:
    """Which coefficients each unit has (units, columns - 1), and the relative penalty of each column."""
    couplings = np.repeat(learned["allowed"].T[:, :, None], design.n_basis, axis=2)
    if learned["refractory"][0]:
        # The refractory kernel is a unit's own.
        couplings[:, :, -1] &= np.arange(design.n_receivers)[:, None] == learned["senders"]
    couplings = couplings.reshape(design.n_receivers, -1)
    features = np.ones((design.n_receivers, design.n_features), dtype=bool)
    if "gained" in learned:
        features[:, : learned["gained"].shape[1]] = learned["gained"]
    scale = np.ones(design.columns - 1)
    scale[: design.n_features] = model.config.feature_penalty
    return torch.from_numpy(np.concatenate([features, couplings], axis=1)), torch.from_numpy(scale)


def oddities(problem: Problem, learned: dict[str, np.ndarray], given_history: int) -> list[str]:
    """What is unusual about these data and how it was treated, a sentence each."""
    design, notes = problem.design, []
    seen = problem.total > 0
    silent, unseen = (units.nonzero()[:, 0].tolist() for units in (seen & ~problem.fitted, ~seen))
    if silent:
        notes.append(
            f"units {silent}: no spike in the training part; no coupling, rate held at half a spike in all of it"
        )
    if unseen:
        notes.append(f"units {unseen}: not observed in the training part; no coupling, rate held at the mean of all")
    constant = problem.constant.nonzero()[:, 0].cpu().numpy()
    coupled = constant[constant >= design.n_features] - design.n_features
    senders = np.unique(design.data.senders[coupled // design.n_basis]).tolist()
    if senders:
        notes.append(f"units {senders}: silent as inputs; their couplings are zero")
    features = constant[constant < design.n_features].tolist()
    if features:
        notes.append(f"features {features}: constant; their weights are zero")
    rank_deficiency = problem.covariance.rank_deficiency()
    if rank_deficiency:
        lost = f"{rank_deficiency} directions of the inputs are not told apart by the data"
        notes.append(f"{lost} (copies, sums of others, more inputs than bins); the ridge shares weight between them")
    window = len(learned["kernel"])
    if given_history < window:
        notes.append(f"windows give {given_history} bins of history, filters have {window}: the rest counts as silence")
    missing = [learned[name] for name in sorted(learned) if name.startswith("signal") and name.endswith("_missing")]
    if missing and np.concatenate(missing).any():
        shares = np.concatenate(missing).round(4).tolist()
        notes.append(f"signals missing in a share {shares} of the bins: their mean instead")
    if problem.observation.link == "logistic" and problem.most > 1:
        notes.append("bins with several spikes count as bins with one (Bernoulli)")
    return notes
