"""Sessions that see the same latents through different units start out reading the same latents."""

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from pipeline_lib.models.lfads.alignment import Alignment, Responses, align
from pipeline_lib.models.lfads.model import CONDITION, LFADS
from pipeline_lib.training.run import Run
from tests.models.lfads.small import SMALL
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

BINS, TRIALS, LATENTS = 60, 40, 2


def session(
    seed: int, units: int, conditions: list[int], heldout: int = 0, rate: float = 0.5, trials: int = TRIALS
) -> tuple[Responses, np.ndarray, np.ndarray]:
    """Responses, log-rates [C, T, N] and latents [C, T, 2] of a session; the latents are those of the conditions."""
    rng = np.random.default_rng(seed)
    time = np.arange(BINS) / BINS
    latents = np.stack(
        [np.stack([np.sin(2 * np.pi * (time + c / 5)), np.cos(4 * np.pi * time + c)], -1) for c in conditions]
    )
    logs = np.log(rate) + latents @ rng.normal(size=(LATENTS, units)) * 0.5
    counts = rng.poisson(np.exp(logs)[:, None], (len(conditions), trials, BINS, units))
    spikes = {c: counts[k].sum(axis=0).astype(float) for k, c in enumerate(conditions)}
    seen = {c: np.full((BINS, units), float(trials)) for c in conditions}
    some = counts[:, :10].reshape(-1, BINS, units)
    mask = np.ones(some.shape, bool)
    made = Responses(spikes, seen, lambda: (some, mask, mask), np.arange(heldout, units), history=0)
    return made, logs, latents


def read(alignment: Alignment, logs: np.ndarray, heldout: int = 0) -> np.ndarray:
    return np.exp(logs[..., heldout:]) @ alignment.read_in + alignment.offset


def r2(true: np.ndarray, estimate: np.ndarray) -> float:
    return 1 - ((true - estimate) ** 2).sum() / ((true - true.mean(axis=(0, 1))) ** 2).sum()


def test_shared_conditions_give_shared_latents() -> None:
    first, logs, latents = session(0, 30, [0, 1, 2, 3], heldout=4)
    second, other_logs, _ = session(1, 20, [1, 2, 3, 4])
    made = align({"a": first, "b": second}, LATENTS, sd=2.0)
    one, two = read(made["a"], logs[1:], heldout=4), read(made["b"], other_logs[:3])
    assert r2(one, two) > 0.95
    assert np.allclose(one.std(axis=(0, 1)), 1, atol=0.1)
    # What is read are the latents, but for their axes; what is written are the rates, of held-out units too.
    flat = np.concatenate([one.reshape(-1, LATENTS), np.ones((3 * BINS, 1))], 1)
    fitted = flat @ np.linalg.lstsq(flat, latents[1:].reshape(-1, LATENTS), rcond=None)[0]
    assert r2(latents[1:], fitted.reshape(latents[1:].shape)) > 0.9
    for alignment, own, latent in ((made["a"], logs[1:], one), (made["b"], other_logs[:3], two)):
        assert r2(own - own.mean(axis=(0, 1)), latent @ alignment.read_out) > 0.85


def test_where_no_trial_had_a_spike_the_rate_was_not_nothing() -> None:
    """A quarter of a spike a bin in all trials together: read-outs to logs of silence would be twice too large."""
    made = {name: session(seed, 20, [0, 1, 2, 3], rate=0.05, trials=5) for seed, name in enumerate("ab")}
    alignments = align({name: each for name, (each, *_) in made.items()}, LATENTS, sd=2.0)
    for name, (_, logs, _) in made.items():
        written = read(alignments[name], logs) @ alignments[name].read_out
        assert r2(logs - logs.mean(axis=(0, 1)), written) > 0.6


def test_windows_of_one_session_at_a_time_are_held() -> None:
    """A hundred sessions' windows would be larger than all that training needs."""
    read: list[weakref.ref] = []

    def windows(made: Responses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert all(before() is None for before in read)
        counts, learned, observed = (each.copy() for each in made.some())
        read.append(weakref.ref(counts))
        return counts, learned, observed

    def watched(made: Responses) -> Responses:
        return replace(made, some=lambda: windows(made))

    apart = {str(number): watched(session(number, 12, [number])[0]) for number in range(3)}
    align(apart, LATENTS, sd=2.0)
    assert len(read) == 3
    shared = {str(number): watched(session(number, 12, [0, 1])[0]) for number in range(3)}
    align(shared, LATENTS, sd=2.0)
    assert len(read) == 3, "with conditions in common they are not even read"


@pytest.mark.parametrize("seed", [0, 5, 6])
def test_without_a_common_condition_each_reads_its_own_components(seed: int) -> None:
    first, logs, latents = session(seed, 30, [0, 1])
    second, *_ = session(1, 20, [2, 3])
    made = align({"a": first, "b": second}, LATENTS, sd=4.0)
    latent = read(made["a"], logs)
    flat = np.concatenate([latent.reshape(-1, LATENTS), np.ones((2 * BINS, 1))], 1)
    fitted = flat @ np.linalg.lstsq(flat, latents.reshape(-1, LATENTS), rcond=None)[0]
    assert r2(latents, fitted.reshape(latents.shape)) > 0.8
    total = np.exp(logs).sum(-1)
    for each in np.moveaxis(latent, -1, 0):  # more spikes, larger latents: so that signs agree between sessions
        assert np.corrcoef(each.ravel(), total.ravel())[0, 1] > 0
    again = align({"a": first, "b": second}, LATENTS, sd=4.0)
    assert np.array_equal(again["b"].read_in, made["b"].read_in)


@pytest.mark.parametrize("conditions", [[1, 2, 3], [7, 8]], ids=["shared", "own"])
def test_heldout_units_have_no_say_in_what_is_read(conditions: list[int]) -> None:
    """Nor in what other sessions read: latents are the components of held-in units alone."""
    first, *_ = session(0, 12, [0, 1, 2, 3], heldout=4)
    second, *_ = session(1, 10, conditions)
    counts, *masks = (each.copy() for each in first.some())
    counts[..., :4] = np.random.default_rng(2).poisson(9.0, counts[..., :4].shape)
    spikes = {condition: each.copy() for condition, each in first.spikes.items()}
    for each in spikes.values():
        each[:, :4] = np.random.default_rng(3).poisson(200.0, (BINS, 4))
    other = replace(first, spikes=spikes, some=lambda: (counts, *masks))
    made, again = (align({"a": each, "b": second}, LATENTS, sd=2.0) for each in (first, other))
    for name in ("a", "b"):
        assert np.array_equal(made[name].read_in, again[name].read_in)
        assert np.array_equal(made[name].offset, again[name].offset)
    assert np.array_equal(made["b"].read_out, again["b"].read_out)
    assert np.array_equal(made["a"].read_out[:, 4:], again["a"].read_out[:, 4:])
    assert not np.allclose(made["a"].read_out[:, :4], again["a"].read_out[:, :4])


@pytest.mark.parametrize("silent", [False, True])
def test_more_latents_than_there_are_stay_finite(silent: bool) -> None:
    first, *_ = session(0, 5, [0])
    if silent:
        first.spikes[0][:, 2] = 0
    second, *_ = session(1, 3, [0])
    made = align({"a": first, "b": second}, 12, sd=2.0)
    for each, units in ((made["a"], 5), (made["b"], 3)):
        assert each.read_in.shape == (units, 12) and each.read_out.shape == (12, units)
        assert all(np.isfinite(part).all() for part in (each.read_in, each.offset, each.read_out))


def test_bins_that_a_session_did_not_observe_are_left_out() -> None:
    first, logs, _ = session(0, 30, [0, 1])
    second, *_ = session(1, 20, [0, 1])
    complete = align({"a": first, "b": second}, LATENTS, sd=2.0)
    for condition in (0, 1):
        first.seen[condition][40:] = first.spikes[condition][40:] = 0
    made = align({"a": first, "b": second}, LATENTS, sd=2.0)
    assert np.isfinite(made["b"].read_in).all()
    assert (
        abs(np.corrcoef(read(made["a"], logs)[..., 0].ravel(), read(complete["a"], logs)[..., 0].ravel())[0, 1]) > 0.5
    )


def test_windows_of_different_length_are_compared_from_their_start() -> None:
    first, logs, _ = session(0, 30, [0, 1, 2])
    second, other_logs, _ = session(1, 20, [0, 1, 2])
    for arrays in (second.spikes, second.seen):
        arrays.update({condition: array[:40] for condition, array in arrays.items()})
    made = align({"a": first, "b": second}, LATENTS, sd=2.0)
    assert r2(read(made["a"], logs[:, :40]), read(made["b"], other_logs[:, :40])) > 0.9


def test_without_a_common_condition_bins_that_were_not_observed_are_left_out() -> None:
    """As if the windows had ended there."""
    first, *_ = session(0, 12, [0, 1])
    second, *_ = session(1, 10, [2, 3])
    counts, *_ = first.some()
    observed = np.ones(counts.shape, bool)
    observed[:, 40:] = False
    masked = replace(first, some=lambda: (counts * observed, observed, observed))
    ended = replace(first, some=lambda: (counts[:, :40], observed[:, :40], observed[:, :40]))
    found = [align({"a": each, "b": second}, LATENTS, sd=2.0)["a"] for each in (masked, ended)]
    np.testing.assert_allclose(found[0].read_in, found[1].read_in, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0].read_out, found[1].read_out, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("conditions", [[0, 1], [2, 3]], ids=["shared", "own"])
def test_a_unit_that_was_never_observed_neither_reads_nor_writes(conditions: list[int]) -> None:
    """The others do as if it were not there: it leaves no bin in which all units were observed."""
    second, *_ = session(1, 10, [0, 1])

    def gone(whole: Responses, unit: int) -> Responses:
        counts, *_ = whole.some()
        there = np.ones(counts.shape, bool)
        there[..., unit] = False
        spikes = {name: each * there[0] for name, each in whole.spikes.items()}
        seen = {name: each * there[0] for name, each in whole.seen.items()}
        return replace(whole, spikes=spikes, seen=seen, some=lambda: (counts * there, there, there))

    first, *_ = session(0, 12, conditions, heldout=1)
    without = replace(
        first,
        spikes={name: each[:, :-1] for name, each in first.spikes.items()},
        seen={name: each[:, :-1] for name, each in first.seen.items()},
        some=lambda: tuple(each[..., :-1] for each in first.some()),
        heldin=first.heldin[:-1],
    )
    made, apart = (align({"a": each, "b": second}, LATENTS, sd=2.0) for each in (gone(first, 11), without))
    assert not made["a"].read_in[-1].any()
    np.testing.assert_allclose(made["a"].read_out[:, -1], 0, atol=1e-9)
    np.testing.assert_allclose(made["b"].read_in, apart["b"].read_in, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(made["a"].read_out[:, :-1], apart["a"].read_out, rtol=0.01, atol=1e-4)


def test_units_of_which_no_two_were_there_together_are_aligned_all_the_same() -> None:
    """One leaves as the other comes, as units do that drift."""
    first, *_ = session(0, 12, [0, 1])
    second, *_ = session(1, 10, [2, 3])
    counts, *_ = first.some()
    there = np.ones(counts.shape, bool)
    there[:10, :, 0] = there[10:, :, 1] = False
    drifting = replace(first, some=lambda: (counts * there, there, there))
    whole, made = (align({"a": each, "b": second}, LATENTS, sd=2.0)["a"] for each in (first, drifting))
    assert made.read_in.any(axis=1).all()
    written, right = ((each.read_in @ each.read_out)[2:, 2:].ravel() for each in (made, whole))
    assert np.corrcoef(written, right)[0, 1] > 0.9


def test_a_window_without_a_condition_is_of_none(tmp_path: Path) -> None:
    """Not of the first one, whose average it would enter."""
    made = [recording("one", 0, units=9, trials=20), recording("two", 1, units=12, trials=20)]
    data = open_cohort(*write_cohort(tmp_path, made=made), fitting=True)
    samples = data.split.samples.copy()
    nameless = samples.index[samples["session"] == "one"][::3]
    samples.loc[nameless, "condition"] = None
    samples.loc[(samples["session"] == "two") & (samples["condition"] == "c0"), "condition"] = None
    data = replace(data, split=replace(data.split, samples=samples))
    model = LFADS(replace(SMALL, read_in=3), 0)
    windows = model.windows(data, "train", Run(tmp_path))
    model.start(data, windows)
    rows = data.samples("one", "train")
    found = model._responses("one", windows["one"])
    named = rows["condition"].dropna()
    assert 0 < len(named) < len(rows)
    assert sorted(int(seen.max()) for seen in found.seen.values()) == sorted(named.value_counts())
    # A condition that one session lacks is no other's.
    codes = {session: windows[session].inputs[CONDITION].numpy() for session in ("one", "two")}
    second = data.samples("two", "train")["condition"].to_numpy()
    for name in ("c1", "c2"):
        assert set(codes["one"][(rows["condition"] == name).to_numpy()]) == set(codes["two"][second == name])


@pytest.mark.parametrize("bin_size", [10.0, 20.0])
def test_a_cohort_starts_to_read_what_a_gaussian_of_20_ms_makes_of_its_responses(
    bin_size: float, tmp_path: Path
) -> None:
    """Whatever the bins: written out anew from the counts. A latent's sign is free."""
    made = [recording("one", 0, units=9, trials=20), recording("two", 1, units=12, trials=20)]
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, bin_size=bin_size), SPLITS, made), fitting=True)
    model = LFADS(replace(SMALL, read_in=3), 0)
    model.start(data, model.windows(data, "train", Run(tmp_path)))
    apart = LFADS(replace(SMALL, read_in=3, alignment=False), 0)
    apart.start(data, apart.windows(data, "train", Run(tmp_path)))

    def smoothed(x: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(x, 20 / bin_size, axis=1, mode="constant")[:, data.split.history_bins :]

    responses, means_of = {}, {}
    for session in data.sessions:
        samples = data.samples(session, "train")
        counts, mask = (each[:, :, model.layout.heldin[session]] for each in data.read(session, samples))
        own = [samples["condition"] == each for each in ("c0", "c1", "c2")]
        means = np.stack([counts[rows].sum(0) / mask[rows].sum(0) for rows in own])
        x = (smoothed(means) / smoothed(np.ones_like(means))).reshape(-1, means.shape[2])
        means_of[session] = x.mean(0)
        responses[session] = x - means_of[session]
    scores = np.linalg.svd(np.concatenate([*responses.values()], 1), full_matrices=False)[0][:, :3]
    scores *= np.sqrt(len(scores))
    for session, x in responses.items():
        square = x.T @ x
        ridge = 0.01 * np.trace(square) / len(square) * np.eye(len(square))
        weights = np.linalg.solve(square + ridge, x.T @ scores)
        read_in = model.network.head(session).read_in
        found, offset = (each.numpy(force=True).T for each in (read_in.weight, read_in.bias))
        assert np.allclose(np.abs(found), np.abs(weights), atol=1e-3 * np.abs(weights).max())
        np.testing.assert_allclose(offset, -means_of[session] @ found, rtol=1e-3, atol=1e-5)  # mean counts read as 0
        unasked = apart.network.head(session).read_in
        assert not unasked.bias.any() and 0.1 < unasked.weight.std() * len(found) ** 0.5 < 2  # random
