"""The EIF simulator against its equations, written out neuron by neuron, and against what its truth promises."""

import numpy as np
import pytest

from pipeline_lib.clock import to_ticks
from pipeline_lib.sources.simulate import eif, simulate

UNITS = 100


@pytest.fixture(scope="module")
def tutorial():
    return simulate("eif", {"trials": 96}, 3, "tutorial")


def counts_of(recording, bin_ms: int = 2) -> np.ndarray:
    """Counts (trial, bin, unit), by a histogram of its own."""
    starts, ticks = to_ticks(recording.trials["start"]), to_ticks(recording.spike_times)
    trial = np.searchsorted(starts, ticks, side="right") - 1
    shape = (len(starts), 600 // bin_ms, len(recording.units))
    counts = np.zeros(shape, dtype=int)
    np.add.at(counts, (trial, (ticks - starts[trial]) // (100 * bin_ms), recording.spike_units), 1)
    return counts


def test_integration_follows_the_equations_step_by_step() -> None:
    rng = np.random.default_rng(0)
    trials, bins, units = 3, 25, 6
    background = rng.uniform(0.1, 0.5, (trials, bins, units)).astype(np.float32)
    coupling = rng.uniform(0, 0.6, (units, units)).astype(np.float32)
    noise = np.random.default_rng(1)
    fired = np.concatenate([block.copy() for block, _ in eif.integrate(background, coupling, noise)])

    drawn = np.random.default_rng(1).standard_normal((bins * 10, trials, units), dtype=np.float32).astype(float)
    expected = np.zeros(fired.shape, dtype=bool)
    tap = [np.exp(-k * 0.2 / 5) - np.exp(-k * 0.2 / 1) for k in range(75)]
    for trial in range(trials):
        voltage, last = np.full(units, -65.0), np.full(units, -100)
        for step in range(bins * 10):
            for unit in range(units):
                synaptic = 0.0
                for past in range(max(0, step - 75), step):
                    synaptic += tap[step - 1 - past] * coupling[expected[past, trial], unit].astype(float).sum()
                v = voltage[unit]
                change = -0.2 / 15 * (v + 60) + 0.2 / 15 * 2 * np.exp((v + 50) / 2)
                change += drawn[step, trial, unit] + synaptic + background[trial, step // 10, unit]
                voltage[unit] = v + 2 * change
                if step - last[unit] <= 5:
                    voltage[unit] = -65
                if voltage[unit] >= -10:
                    expected[step, trial, unit] = True
                    voltage[unit], last[unit] = -65, step
    assert expected.sum() > 60
    assert np.array_equal(fired, expected)


def test_synaptic_input_is_the_kernel_convolved_with_the_senders_spikes(tutorial) -> None:
    truth, trial = tutorial.truth.arrays, 5
    steps = np.zeros((3000, UNITS))
    ticks = to_ticks(tutorial.spike_times) - to_ticks(tutorial.trials["start"])[trial]
    here = (ticks >= 0) & (ticks < 60_000)
    assert (ticks[here] % 20 == 10).all(), "in the middle of a step: no rounding moves a spike over an edge"
    np.add.at(steps, (ticks[here] // 20, tutorial.spike_units[here]), 1)
    arriving = np.stack([np.convolve(column, truth["synapse_kernel"])[:3000] for column in steps.T], axis=1)
    arriving = np.concatenate([np.zeros((1, UNITS)), arriving[:-1]]) @ truth["coupling"]
    binned = arriving.reshape(300, 10, UNITS).mean(axis=1)
    assert np.allclose(binned, truth["coupling_input"][trial], atol=1e-5)


def test_rates_follow_the_stimulus(tutorial) -> None:
    assert list(tutorial.units["region"].unique()) == ["VISp", "VISl"]
    psth = counts_of(tutorial).mean(axis=0) / 0.002
    rates = psth.mean(axis=0)
    assert rates.min() > 5 and rates.max() < 80 and 25 < rates.mean() < 45  # the authors show a neuron of 31 Hz
    time = (np.arange(300) + 0.5) * 2 - 100
    v1 = np.convolve(psth[:, :50].mean(axis=1), np.ones(10) / 10, mode="same")
    early, late = (time > 20) & (time < 130), (time > 170) & (time < 350)
    assert abs(time[early][v1[early].argmax()] - 62) < 15
    assert abs(time[late][v1[late].argmax()] - 262) < 25
    onset = tutorial.trials["stimulus_onset"] - tutorial.trials["start"]
    assert np.allclose(onset, 0.1)


@pytest.mark.parametrize("area", [0, 1])
def test_templates_peak_where_the_authors_do(area: int) -> None:
    time = np.arange(0, 500, 0.01)
    template = eif.stimulus_template(time, area)
    for peak in eif.PEAKS[area]:
        near = np.abs(time - peak) < 30
        assert abs(time[near][template[near].argmax()] - peak) < 0.3


def test_trials_peak_at_the_drawn_times_of_both_areas() -> None:
    settings = eif.Settings(trials=4000, gp_amplitude=0.0)
    response = eif.stimulus_responses(settings, np.random.default_rng(0))
    assert response.min() >= 0 and 0.2499 < response.max() < 0.250001 and (response[:, :49] < 0.01).all()
    time = (np.arange(300) + 0.5) * 2 - 100
    early = time < 150
    peaks = time[early][response[:, early].argmax(axis=1)]
    assert np.allclose(peaks.mean(axis=0), [60, 65], atol=1) and np.allclose(peaks.std(axis=0), 10, atol=1)
    assert abs(np.corrcoef(peaks.T)[0, 1] - 0.5) < 0.05
    late = time[~early][response[:, ~early].argmax(axis=1)]
    assert np.allclose(late.mean(axis=0), [260, 265], atol=1.5) and np.allclose(late.std(axis=0), 25, atol=1)
    assert late.min() >= 169 and 325 < late.max() <= 331, "no later than 330 ms"


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_slow_background_has_its_size_timescale_and_correlation(share: float) -> None:
    settings = eif.Settings(trials=6000, gp_amplitude=0.2, shared_background=share)
    slow = eif.slow_background(settings, np.random.default_rng(0)).astype(float)
    assert np.allclose(slow.std(axis=0), 0.2, rtol=0.05)
    lagged = np.corrcoef(slow[:, 50, 0], slow[:, 200, 0])[0, 1]  # 300 ms apart
    assert abs(lagged - np.exp(-0.5)) < 0.04
    assert abs(np.corrcoef(slow[:, 100].T)[0, 1] - np.sqrt(share)) < 0.04


def test_synapses_lead_from_v1_to_lm_only(tutorial) -> None:
    coupling, synapse = tutorial.truth.arrays["coupling"], tutorial.truth.arrays["synapse"]
    assert synapse.sum() == 100 and synapse[:10, 50:60].all()
    assert not coupling[50:, :50].any() and not coupling[:50, 60:].any()
    assert 0.08 < np.median(coupling[synapse]) < 0.125 and abs(np.log(coupling[synapse]).std() - 0.4) < 0.1
    assert (coupling * 2**20 % 1 == 0).all(), "sums of synapses are exact in any order"
    within = np.concatenate([coupling[:50, :50].ravel(), coupling[50:, 50:].ravel()])
    assert within.min() > 0 and 0.0009 < np.median(within) < 0.0011


def test_slow_background_reaches_every_neuron_by_a_loading_of_its_own() -> None:
    made = simulate("eif", {"trials": 2, "neurons_per_area": 60, "stimulus": 0.0, "recurrent": 0.0}, 3, "slow")
    inputs = made.truth.arrays["background_input"].reshape(-1, 2, 60)
    for area in range(2):
        loading = inputs[:, area].T @ inputs[:, area, 0] / (inputs[:, area, 0] ** 2).sum()
        assert np.allclose(inputs[:, area], inputs[:, area, :1] * loading, atol=1e-5)
        assert 1.8 < loading.max() / loading.min() < 2, "from a half to one"


def lagged_excess(recording, senders: slice, receivers: slice) -> float:
    """Extra spikes of the receivers 2 to 12 ms after a sender's spike, over those 2 to 12 ms before it."""
    counts = counts_of(recording).astype(float)
    sent, received = counts[:, :, senders].sum(axis=2), counts[:, :, receivers].sum(axis=2)
    after, before = (
        sum((sent[:, max(0, -k) : 300 - max(0, k)] * received[:, max(0, k) : 300 - max(0, -k)]).sum() for k in lags)
        for lags in (range(1, 7), range(-6, 0))
    )
    return (after - before) / np.sqrt(after + before)


def test_spikes_of_coupled_neurons_cause_spikes_and_no_others_do() -> None:
    # Without a stimulus, which drives LM a few milliseconds after V1.
    made = simulate("eif", {"trials": 96, "stimulus": 0.0}, 3, "spontaneous")
    assert lagged_excess(made, slice(0, 10), slice(50, 60)) > 15
    assert abs(lagged_excess(made, slice(10, 50), slice(60, 100))) < 4


def test_without_synapses_the_areas_are_independent_given_nothing_shared() -> None:
    made = simulate("eif", {"trials": 96, "connection": 0.0, "stimulus": 0.0}, 3, "uncoupled")
    assert not made.truth.arrays["synapse"].any() and not made.truth.arrays["coupling"][:50, 50:].any()
    counts = counts_of(made, bin_ms=20).astype(float)
    v1, lm = (counts[:, 5:, area].sum(axis=2) for area in (slice(0, 50), slice(50, 100)))
    v1, lm = v1 - v1.mean(axis=0), lm - lm.mean(axis=0)
    by_trial = (v1 * lm).sum(axis=1)  # trials are independent of each other, bins of a trial are not
    assert abs(by_trial.mean()) < 3.5 * by_trial.std() / np.sqrt(len(by_trial))


def test_shared_background_correlates_the_areas() -> None:
    made = simulate("eif", {"trials": 96, "connection": 0.0, "shared_background": 0.9}, 3, "shared")
    counts = counts_of(made, bin_ms=20).sum(axis=1).astype(float)
    v1, lm = counts[:, :50].sum(axis=1), counts[:, 50:].sum(axis=1)
    assert np.corrcoef(v1, lm)[0, 1] > 0.6


def test_settings_that_differ_in_the_synapses_see_the_same_noise(tutorial) -> None:
    made = simulate("eif", {"trials": 96, "connection": 0.0}, 3, "tutorial")
    assert np.array_equal(made.truth.arrays["background_input"], tutorial.truth.arrays["background_input"])
    v1 = made.spike_units < 50
    assert np.array_equal(made.spike_times[v1], tutorial.spike_times[tutorial.spike_units < 50])
