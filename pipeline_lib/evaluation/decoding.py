"""What can be read out of rates or latents: movement, choices, timing. Readouts see the training part only.

The regression and the timing score are those of the Neural Latents Benchmark (Pei et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from pipeline_lib.clock import to_seconds
from pipeline_lib.evaluation.metrics import r2
from pipeline_lib.evaluation.sums import square_sums
from pipeline_lib.trains.signals import interpolated

ALPHAS = np.logspace(-4, 0, 9)
"""Ridge penalties of the benchmark."""
STRENGTHS = np.logspace(-3, 3, 7)
"""Penalties of the logistic regression, nats: strength / 2 * |weights|^2 for inputs of variance 1."""
FOLDS = 5
PIECES = 4
"""Equal parts of a window over which rates are averaged for a choice."""


@dataclass(frozen=True)
class Ridge:
    """A linear readout: inputs @ `weights` [F, K] + `bias` [K]; `alpha` is the penalty that was chosen."""

    weights: np.ndarray
    bias: np.ndarray
    alpha: float

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """[..., F] -> [..., K]."""
        return inputs @ self.weights + self.bias


def fit_ridge(inputs: np.ndarray, targets: np.ndarray) -> Ridge:
    """Ridge regression with an intercept; the penalty, one of `ALPHAS`, is best in `FOLDS` contiguous folds.

    As in the benchmark: folds in order, unshuffled; the mean of their R2 (uniform over targets) decides, the first
    best wins, and the readout is then fitted to everything.

    Parameters
    ----------
    inputs : [R, F]. targets : [R, K]; R at least `FOLDS`.
    """
    inputs, targets = inputs.astype(np.float64), targets.astype(np.float64)
    centre = inputs.mean(axis=0), targets.mean(axis=0)
    x, y = inputs - centre[0], targets - centre[1]
    folds = np.array_split(np.arange(len(x)), FOLDS)
    moments = [_Moments.of(x[fold], y[fold]) for fold in folds]
    whole = _Moments.of(x, y)
    scores = np.zeros(len(ALPHAS))
    for fold, own in zip(folds, moments, strict=True):
        for place, (weights, bias) in enumerate(whole.without(own).solutions(ALPHAS)):
            scores[place] += r2(square_sums(y[fold][:, None], (x[fold] @ weights + bias)[:, None]).total())[0]
    alpha = float(ALPHAS[int(np.argmax(scores))])
    ((weights, bias),) = whole.solutions(np.array([alpha]))
    return Ridge(weights, bias + centre[1] - centre[0] @ weights, alpha)


@dataclass(frozen=True)
class _Moments:
    """Sums over rows, from which a ridge regression follows."""

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    gram: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "_Moments":
        return cls(np.array(len(x)), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y)

    def without(self, other: "_Moments") -> "_Moments":
        return _Moments(*(getattr(self, name) - value for name, value in vars(other).items()))

    def solutions(self, alphas: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights and bias for each penalty, from one eigendecomposition."""
        x, y = self.x / self.rows, self.y / self.rows
        values, vectors = np.linalg.eigh(self.gram - self.rows * np.outer(x, x))
        rotated = vectors.T @ (self.cross - self.rows * np.outer(x, y))
        each = [vectors @ (rotated / (np.maximum(values, 0) + alpha)[:, None]) for alpha in alphas]
        return [(weights, y - x @ weights) for weights in each]


def signal_in_bins(
    time: np.ndarray, values: np.ndarray, start_ticks: np.ndarray, bins: int, ticks: int, lag: float = 0.0
) -> np.ndarray:
    """A signal at the centre of every bin of some windows, linearly interpolated: [window, bin, dimension].

    Parameters
    ----------
    time : [R] s, rising. values : [R, K].
    start_ticks : [window], first tick of each. bins, ticks : bins in a window, ticks in a bin.
    lag : s after the bin at which the signal is read.

    NaN before its first and after its last value, in gaps (`trains.signals`), and next to a NaN of its own.
    """
    centres = to_seconds(start_ticks[:, None] + np.arange(bins) * ticks) + float(to_seconds(ticks)) / 2 + lag
    # In whole microseconds: a value at the centre itself is then taken as it is, whatever is beside it.
    at, known = (np.rint(seconds * 1e6) / 1e6 for seconds in (centres, time))
    return interpolated(at, known, values.astype(np.float64))


def window_features(rates: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Rates [S, T, N] averaged over `PIECES` equal parts of each window's own bins (its first `bins` [S]): [S, F]."""
    position = np.arange(rates.shape[1])
    known = np.where((position < bins[:, None])[:, :, None], rates, 0).astype(np.float64)
    part = np.minimum(position * PIECES // np.maximum(bins[:, None], 1), PIECES - 1)
    belongs = (part[:, None, :] == np.arange(PIECES)[:, None]) & (position < bins[:, None])[:, None, :]
    sums = belongs.astype(np.float64) @ known
    return (sums / np.maximum(belongs.sum(axis=2), 1)[:, :, None]).reshape(len(rates), -1)


def decode_classes(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class [S] of each row of `test` [S, F], by a multinomial logistic regression fitted to `train` [R, F].

    Inputs are standardised by the rows that a regression is fitted to, classes weighted equally; the penalty, one of
    `STRENGTHS`, is that of the least cross-validated loss in the training rows, where the classes that a fold holds
    weigh equally. `labels` [R] has at least two classes.
    """
    names, member = np.unique(labels, return_inverse=True)
    fold = np.empty(len(train), dtype=np.int64)
    fold[np.argsort(member, kind="stable")] = np.arange(len(train)) % FOLDS  # dealt class by class
    losses = np.zeros(len(STRENGTHS))
    for number in np.unique(fold):
        fitted = fold != number
        # Of a class that it has not seen a regression says nothing but how far its bias ran: no penalty is at fault.
        scored = (fold == number) & np.isin(member, member[fitted])
        x, unseen = _standardised(train[fitted], train[scored])
        start = None
        for place in reversed(range(len(STRENGTHS))):
            start = _logistic(x, member[fitted], len(names), STRENGTHS[place], start)
            losses[place] += _loss(start, unseen, member[scored], len(names))[0]
    x, unseen = _standardised(train, test)
    weights = _logistic(x, member, len(names), STRENGTHS[int(np.argmin(losses))], None)
    return names[np.argmax(_scores(weights, unseen), axis=1)]


def _standardised(fitted: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both [rows, F] less the mean of `fitted` and by its deviation, in axes [rows, G] along which `fitted` varies.

    A ridge penalty does not change under rotation: as many inputs as `fitted` has rows say all there is.
    """
    centre, scale = fitted.mean(axis=0), fitted.std(axis=0)
    scale[scale == 0] = 1
    standard = (fitted - centre) / scale
    _, _, directions = np.linalg.svd(standard, full_matrices=False)
    return standard @ directions.T, (unseen - centre) / scale @ directions.T


def _logistic(x: np.ndarray, member: np.ndarray, classes: int, strength: float, start: np.ndarray | None) -> np.ndarray:
    """Weights and, last, bias [F + 1, classes]."""
    first = np.zeros((x.shape[1] + 1, classes)) if start is None else start

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(first.shape)
        value, gradient = _loss(weights, x, member, classes)
        gradient[:-1] += strength * weights[:-1]
        return value + 0.5 * strength * float((weights[:-1] ** 2).sum()), gradient.ravel()

    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10})
    return found.x.reshape(first.shape)


def _scores(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x @ weights[:-1] + weights[-1]


def _loss(weights: np.ndarray, x: np.ndarray, member: np.ndarray, classes: int) -> tuple[float, np.ndarray]:
    """Negative log-likelihood (nats), every class of `member` weighing as much as any other; and its gradient.

    As with scikit-learn's balanced weights: they sum to the number of rows, and a class without a row has none of it.
    """
    scores = _scores(weights, x)
    logs = scores - logsumexp(scores, axis=1, keepdims=True)
    counts = np.bincount(member, minlength=classes)
    weight = (len(x) / (np.maximum(counts, 1) * max((counts > 0).sum(), 1)))[member]
    error = weight[:, None] * (np.exp(logs) - np.eye(classes)[member])
    gradient = np.concatenate([x.T @ error, error.sum(axis=0, keepdims=True)])
    return float(-(weight * logs[np.arange(len(x)), member]).sum()), gradient


def balanced_accuracy(labels: np.ndarray, decoded: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of right answers in each class, averaged over the classes there are; one value a row of `weights`.

    Parameters
    ----------
    labels, decoded : [S]. weights : [resamples, S], how often each sample counts.
    """
    right = (labels == decoded).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares = [
            (weights[:, own] @ right[own]) / weights[:, own].sum(axis=1)
            for own in (labels == name for name in np.unique(labels))
        ]
    return np.nanmean(shares, axis=0)


def speed_correlation(rates: np.ndarray, known: np.ndarray, timing: np.ndarray, group: np.ndarray) -> float:
    """Correlation of a time with the speed of the rates, taken within each group of trials and averaged over them.

    The speed is the mean length of the change of all rates from a trial's known bins to the next, where that is known,
    too. Trials that change fast should be short: the score of the benchmark's interval task, there negative.

    Parameters
    ----------
    rates : [S, T, N]. known : [S, T] bool, bins that count. timing : [S]. group : [S].

    NaN where no group has two trials of different times and speeds.
    """
    speed = np.array([_speed(own, seen) for own, seen in zip(rates, known, strict=True)])
    usable = np.isfinite(speed) & np.isfinite(timing)
    found = []
    for name in np.unique(group[usable]):
        rows = usable & (group == name)
        if np.ptp(speed[rows]) > 0 and np.ptp(timing[rows]) > 0:
            found.append(np.corrcoef(speed[rows], timing[rows])[0, 1])
    return float(np.mean(found)) if found else float("nan")


def _speed(path: np.ndarray, known: np.ndarray) -> float:
    """Of one trial: `path` [T, N], `known` [T]."""
    steps = known[1:] & known[:-1]
    lengths = np.linalg.norm(np.diff(path.astype(np.float64), axis=0)[steps], axis=1)
    return float(lengths.mean()) if len(lengths) else float("nan")
