"""How sure a fit is of its couplings: a permutation test of pairs of populations, standard errors of units' weights.

Pairs of populations. Given all other terms, the log-likelihood that a coupling adds to a trial is, to second order in
the coupling, ``sum_t U(t) g(t) - Q(t) g(t)^2 / 2``: g what the sender passes on, U and Q what the receiver was doing.
It is computed for every receiver's trial with every sender's trial. Permuting the trials (within a condition) gives
what chance and the stimulus would add.

Units. The information that the data hold on one set of weights, receiving or sending, all others fixed: exact for a
Poisson log-linear model. A pair of units is coupled only if one sends and the other receives, so its p-value is the
larger of the two (an intersection-union test: Berger 1982).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.glm_transformer.filters import filter_units

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.network import GLMTransformer
    from pipeline_lib.training.batches import Batch


@dataclass(frozen=True)
class Evidence:
    """Of the trials of a session: `passed`, `score` [S, T, A, A, K] and `curvature` [S, T, A, A, K, K].

    Axes A, A are sender and receiver; g, U and Q of the module's text. `spikes` [A] of each population in all trials;
    `condition` [S] as a batch's inputs give it.
    """

    passed: Tensor
    score: Tensor
    curvature: Tensor
    spikes: np.ndarray
    condition: np.ndarray

    def trial_gains(self, sender: int, receiver: int) -> np.ndarray:
        """Log-likelihood (nats) a coupling adds to each receiver's trial (row), given each sender's (column)."""
        g = self.passed[:, :, sender, receiver]
        squares = (g[..., :, None] * g[..., None, :]).flatten(1)
        first = self.score[:, :, sender, receiver].flatten(1) @ g.flatten(1).T
        second = self.curvature[:, :, sender, receiver].flatten(1) @ squares.T
        return (first - second / 2).double().cpu().numpy()

    def spike_gains(self, sender: int, receiver: int) -> np.ndarray:
        """The same, in nats a spike of the receiving population in a mean trial."""
        return self.trial_gains(sender, receiver) * (len(self.passed) / max(self.spikes[receiver], 1.0))


@torch.no_grad()
def evidence(network: GLMTransformer, batches: Iterable[Batch]) -> Evidence:
    """Evidence for each coupling of populations in the windows of `batches`, all of one session."""
    parts, conditions, spikes = [], [], np.zeros(len(network.areas))
    for batch in batches:
        counted = (batch.counts * batch.observed)[:, batch.history :].sum((0, 1))
        spikes += np.bincount(network.head(batch.session).area.cpu(), counted.cpu(), len(spikes))
        parts.append(_batch_evidence(network, batch))
        conditions.append(batch.inputs.get("condition", torch.zeros(len(batch.counts))))
    passed, score, curvature = (_joined(each) for each in zip(*parts, strict=True))
    return Evidence(passed, score, curvature, spikes, torch.cat(conditions).cpu().numpy())


def _joined(pieces: tuple[Tensor, ...]) -> Tensor:
    """Pieces [S, T, ...] end to end; where windows are shorter than the longest, 0: nothing was observed there."""
    longest = max(piece.shape[1] for piece in pieces)
    whole = pieces[0].new_zeros(sum(map(len, pieces)), longest, *pieces[0].shape[2:])
    start = 0
    for piece in pieces:
        whole[start : start + len(piece), : piece.shape[1]] = piece
        start += len(piece)
    return whole


def _batch_evidence(network: GLMTransformer, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    head, areas = network.head(batch.session), len(network.areas)
    passed = network.coupling_factors(batch.session, network.inputs(batch), batch.history)
    scores, curvatures = [], []
    for sender, residual, rates in residuals(network, batch):
        weights = head.receive[:, sender]  # [N, K]
        to = head.member[:, :, None] * weights[:, None]  # [N, A, K]
        scores.append(torch.tensordot(residual, to, 1))
        curvatures.append(torch.tensordot(rates, to[..., None] * weights[:, None, None], 1))
    return passed.unflatten(2, (areas, areas, -1)), torch.stack(scores, 2), torch.stack(curvatures, 2)


def residuals(network: GLMTransformer, batch: Batch) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each population as a sender, and what its couplings leave to explain.

    Yields
    ------
    sender : row of `network.areas`.
    residual, rates : [B, T, N], counts above the rates without the couplings from this population, and these rates;
        both 0 where not observed.
    """
    head, areas = network.head(batch.session), len(network.areas)
    passed = network.coupling_factors(batch.session, network.inputs(batch), batch.history)
    passed = passed.unflatten(2, (areas, areas, -1))
    log_rates = network.sum_of_parts(batch)
    counts, observed = batch.counts[:, batch.history :], batch.observed[:, batch.history :]
    for sender in range(areas):
        own = torch.einsum("btjk,nj,nk->btn", passed[:, :, sender], head.member, head.receive[:, sender])
        rates = (log_rates - own).exp() * observed
        yield sender, counts * observed - rates, rates


def permutation_test(gains: np.ndarray, condition: np.ndarray, permutations: int, seed: int) -> tuple[float, float]:
    """How often trials paired at random, within conditions, gain as much as the true pairs, and how much less.

    Parameters
    ----------
    gains : [S, S], of `Evidence.trial_gains`.
    condition : [S], what must not be mixed.
    permutations : how many; p is at least 1 / (permutations + 1).

    Returns
    -------
    p : NaN where every trial has a condition of its own.
    gain : of a mean trial, above the mean of the permutations; in the unit of `gains`.
    """
    _, group, size = np.unique(condition, return_inverse=True, return_counts=True)
    if size.max(initial=0) < 2 or permutations == 0:
        return float("nan"), float("nan")
    draw, order = np.random.default_rng(seed), np.argsort(group, kind="stable")
    trials, true = np.arange(len(gains)), np.trace(gains)
    shuffled = np.empty(permutations)
    for number in range(permutations):
        # Sorting (condition, random number) shuffles the trials of each condition among themselves.
        partner = np.empty_like(trials)
        partner[order] = np.lexsort((draw.random(len(trials)), group))
        shuffled[number] = gains[trials, partner].sum()
    # A dead coupling gains nothing however it is paired: rounding must not make that a difference.
    reached = shuffled >= true - 1e-9 * np.abs(gains).sum()
    return float((1 + reached.sum()) / (permutations + 1)), float((true - shuffled.mean()) / len(gains))


@torch.no_grad()
def weight_errors(network: GLMTransformer, batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of `receive` and of `send` [N, A, K]; NaN where the data say nothing.

    Each set of weights for itself: the receiving weights of a unit (all senders and factors together), and the
    sending weights of a population to another (all its units together, factor by factor).
    """
    received: Tensor | float = 0.0
    sent: dict[tuple[int, int, int], Tensor] = {}
    for batch in batches:
        head, inputs = network.head(batch.session), network.inputs(batch)
        rates = network.sum_of_parts(batch).exp() * batch.observed[:, batch.history :]
        passed = network.coupling_factors(batch.session, inputs, batch.history)
        received = received + _receive_information(network, batch.session, passed, rates)
        for pair, information in _send_information(network, batch, inputs, rates):
            sent[pair] = sent.get(pair, 0.0) + information
    assert isinstance(received, Tensor), "no windows"
    receive_error = _errors(received).unflatten(1, head.receive.shape[1:])
    send_error = torch.full_like(head.send, torch.nan)
    for (sender, receiver, factor), information in sent.items():
        send_error[head.area == sender, receiver, factor] = _errors(information[None])[0].to(send_error.dtype)
    return receive_error.float().cpu().numpy(), send_error.float().cpu().numpy()


def _receive_information(network: GLMTransformer, session: str, passed: Tensor, rates: Tensor) -> Tensor:
    """[N, A K, A K]: of the receiving weights of every unit."""
    head, areas = network.head(session), len(network.areas)
    series = passed.unflatten(2, (areas, areas, -1))
    total = rates.new_zeros(len(head.area), areas * series.shape[-1], areas * series.shape[-1])
    for receiver in range(areas):
        units = head.area == receiver
        g = series[:, :, :, receiver].flatten(2)
        products = (g[..., :, None] * g[..., None, :]).flatten(0, 1).flatten(1)
        made = rates[..., units].flatten(0, 1).T @ products
        total[units] = made.unflatten(1, total.shape[1:])
    return total.double()


def _send_information(
    network: GLMTransformer, batch: Batch, inputs: Tensor, rates: Tensor
) -> Iterator[tuple[tuple[int, int, int], Tensor]]:
    """(sender, receiver, factor) and [N of the sender, N of the sender]: of a population's sending weights."""
    head = network.head(batch.session)
    kernels = network.coupling_kernels(head)
    for sender, receiver in head.coupled.nonzero().tolist():
        units = head.area == sender
        for factor in range(network.config.rank):
            kernel = kernels[:, sender, receiver, factor, None].expand(-1, int(units.sum()))
            past = filter_units(inputs[..., units], kernel, batch.history)
            weights = (head.receive[:, sender, factor].square() * (head.area == receiver)).to(rates.dtype)
            root = (rates @ weights).sqrt()[..., None]
            rows = (past * root).flatten(0, 1)
            yield (sender, receiver, factor), (rows.T @ rows).double()


def _errors(information: Tensor) -> Tensor:
    """Roots of the diagonal of the inverses of [..., k, k]; NaN where a weight has no information."""
    size = information.diagonal(dim1=-2, dim2=-1)
    known = size > 0
    scale = torch.where(known, size, 1.0).rsqrt()
    scaled = information * scale[..., :, None] * scale[..., None, :]
    inverse = torch.linalg.pinv(scaled, hermitian=True)
    errors = inverse.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt() * scale
    return torch.where(known, errors, torch.nan)
