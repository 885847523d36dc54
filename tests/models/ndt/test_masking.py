"""What is hidden and what is scored, mode by mode."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.masked import hidden_in_turn
from pipeline_lib.models.ndt.masking import choose, corrupt, draw_width, mask_batch, widen
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch

POPULATION = np.array(["a", "a", "a", "b", "b", "c"])
REGION = torch.tensor([0, 0, 0, 1, 1, 2])
UNITS = len(POPULATION)


def windows(
    count: int = 200, bins: int = 40, history: int = 0, heldout: tuple[int, ...] = (), forward: int = 0
) -> Batch:
    counts = torch.poisson(torch.full((count, bins, UNITS), 2.0)).to(torch.uint8)
    visible = torch.ones_like(counts, dtype=torch.bool)
    visible[:, :, list(heldout)] = False
    visible[:, bins - forward :] = False
    lengths = torch.full((count,), bins)
    return Batch("s", counts, torch.ones_like(visible), visible, lengths, history)


@pytest.fixture
def layout() -> Layout:
    names = POPULATION.tolist()
    return Layout(5.0, 40, 4, 3, 6, {"s": UNITS}, {"s": [0, 2, 3, 4]}, {"s": names})


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("span", "share"), [(1, 0.25), (5, 0.233), (7, 0.228)])
def test_shares_are_the_measured_ones_of_the_public_code(span: int, share: float) -> None:
    shares = []
    for width in range(1, span + 1):
        hidden, scored = choose(windows(8000, 140), "timestep", 0.25, width, REGION)
        assert hidden.shape == (8000, 140, 1) and torch.equal(hidden, scored)
        shares.append(hidden.float().mean())
    assert np.mean(shares) == pytest.approx(share, abs=0.002)


def test_a_wide_mask_is_runs_of_its_width() -> None:
    chosen = torch.zeros(1, 12, 1, dtype=torch.bool)
    chosen[0, [0, 6]] = True
    assert widen(chosen, 3)[0, :, 0].nonzero()[:, 0].tolist() == [0, 1, 5, 6, 7]
    assert widen(chosen, 4)[0, :, 0].nonzero()[:, 0].tolist() == [0, 1, 2, 5, 6, 7, 8]
    hidden, _ = choose(windows(1, 4000), "element", 0.3, 4, REGION)
    edges = np.flatnonzero(np.diff(np.pad(hidden[0, :, 2].numpy().astype(int), 1)))
    assert hidden.shape == (1, 4000, UNITS) and np.diff(edges)[::2][1:-1].min() == 4


def test_the_span_is_ramped_up() -> None:
    config = Config(mask_span=5, span_ramp=(100, 200))
    assert {draw_width(config, 50) for _ in range(200)} == {1}
    assert {draw_width(config, 200) for _ in range(200)} == {1, 2, 3, 4, 5}
    wide = np.mean([draw_width(config, 150) > 1 for _ in range(2000)])
    assert wide == pytest.approx(0.5 * 0.8, abs=0.04)
    assert {draw_width(Config(), 10_000) for _ in range(50)} == {1}


@pytest.mark.parametrize("compat", [False, True])
def test_hidden_counts_become_zero_or_random_or_stay(compat: bool) -> None:
    counts = windows(400).counts + torch.arange(UNITS, dtype=torch.uint8) * 20  # units that no one can mistake
    hidden = torch.rand(400, 40, 1) < 0.5
    config = Config(mask_token_ratio=0.6, mask_random_ratio=0.5, compat=compat)
    shown = corrupt(counts, hidden, config)
    everywhere = hidden.expand(counts.shape)
    assert torch.equal(shown[~everywhere], counts[~everywhere])
    changed = (shown != counts) & everywhere
    zeroed = (shown == 0) & (counts > 0) & everywhere
    assert zeroed[everywhere & (counts > 0)].float().mean() == pytest.approx(0.6, abs=0.02)
    assert changed[..., 1:][everywhere[..., 1:]].float().mean() == pytest.approx(
        0.6 + 0.4 * 0.5 * (0.98 if compat else 0.8), abs=0.03
    )
    other = shown[..., 3][(changed & ~zeroed)[..., 3]]
    if compat:
        assert other.max() < counts.max() and other.min() < 10
    else:  # a count of the same unit
        assert other.min() >= 60 and other.max() < 80
        assert len(other.unique()) > 5 and other.float().mean() == pytest.approx(62, abs=0.3)
    # A bin that goes to zero does so for all units, unless the public code is asked for. (The first has zeros itself.)
    assert torch.equal(zeroed[..., 1:], zeroed[..., 1:2].expand(-1, -1, UNITS - 1)) != compat


def test_random_counts_come_from_another_place_for_each_unit() -> None:
    """Else a hidden bin would show what all units did together elsewhere."""
    places = torch.arange(200 * 40).view(200, 40, 1).expand(-1, -1, UNITS)
    config = Config(mask_token_ratio=1e-9, mask_random_ratio=1.0)
    shown = corrupt(places, torch.ones(200, 40, 1, dtype=torch.bool), config)
    shift = (shown - places) % places[..., 0].numel()
    assert torch.equal(shift, shift[:1, :1].expand_as(shift)) and len(shift[0, 0].unique()) == UNITS


def test_training_draws_a_mode_and_an_evaluation_takes_all(layout: Layout) -> None:
    network = NDT(Config(masking=("timestep", "neuron", "causal")), 0).build(layout)
    batch = windows(20)
    assert {network.prepare(batch, 0).inputs["shown"].shape for _ in range(3)} == {(20, 1, 40, UNITS)}
    shown = network.prepare(batch, None).inputs["shown"]
    assert shown.shape == (20, 3, 40, UNITS)
    silent = (shown == 0) & (batch.counts > 0)[:, None]
    assert silent.any(3)[:, 0].any(1).all() and not silent[:, 2, :29].any()


@pytest.mark.parametrize(
    ("settings", "alike", "together"),
    [
        ({}, True, True),
        ({"mask_token_ratio": 0.5}, True, False),  # random counts come from the other windows of a batch
        ({"mask_span": 2}, False, False),
        ({"masking": ("timestep", "neuron")}, False, False),
        ({"compat": True}, False, False),  # looks for the largest count
    ],
)
def test_what_is_recorded_or_prepared_for_all_members_is_drawn_without_the_host(
    layout: Layout, settings: dict, alike: bool, together: bool
) -> None:
    network = NDT(Config(**settings), 0).build(layout)
    assert (network.prepares_alike, network.prepares_together) == (alike, together)


def test_an_evaluation_draws_masks_of_a_bin(layout: Layout) -> None:
    """Also where the span is not ramped, and training would draw any width at its first step."""
    batch = windows(100)
    config = Config(mask_span=5, mask_ratio=0.25)
    torch.manual_seed(3)
    _, scored = mask_batch(batch, "timestep", config, 1, REGION)
    torch.manual_seed(3)
    hidden, _ = choose(batch, "timestep", 0.25, 1, REGION)
    assert torch.equal(scored, hidden.expand_as(scored))


def test_a_mask_of_zeros_alone_hides_every_target() -> None:
    batch = windows(history=4, heldout=(1, 5), forward=3)
    batch.counts.clamp_(min=1)
    for mode in ("timestep", "element", "neuron", "causal", "intra_region", "inter_region"):
        config = Config(mask_token_ratio=1, mask_span=5)
        inputs, scored = mask_batch(batch, mode, config, 1, REGION)
        target = scored & batch.visible
        assert target.any() and not inputs[target].any(), mode
        shown = batch.visible & ~target
        shown[:, : batch.history] = False
        if mode != "intra_region":  # there all other regions are hidden, too
            assert torch.equal(inputs[shown], batch.counts[shown]), mode
    inputs, scored = mask_batch(batch, "timestep", Config(mask_token_ratio=0.5), 1, REGION)
    assert inputs[scored & batch.visible].any()


def test_an_evaluation_that_hides_nothing_scores_all_that_was_observed(layout: Layout) -> None:
    """The public code's unmasked loss, of units that it is shown."""
    batch = windows(5, history=4, heldout=(1, 5), forward=3)
    batch.observed[:, :, [1, 5]] = False  # as in the validation part
    batch.observed[2, 8:12] = False
    network = NDT(Config(evaluated_ratio=0, masking=("timestep", "element"), mask_token_ratio=0.5), 0).build(layout)
    made = network.prepare(batch, None).inputs
    assert torch.equal(made["shown"], (batch.counts * batch.visible)[:, None])
    expected = batch.observed.clone()
    expected[:, :4] = False
    assert torch.equal(made["scored"], expected[:, None])
    made = network.prepare(batch, 0).inputs  # training hides as before
    assert 0.1 < made["scored"][:, :, 4:37, [0, 2]].float().mean() < 0.4


def test_a_network_hides_the_populations_of_its_session(layout: Layout) -> None:
    network, batch = NDT(Config(masking=("inter_region",)), 0).build(layout), windows(60)
    batch.counts.clamp_(min=1)
    hidden = network.prepare(batch, 0).inputs["shown"][:, 0, 0] == 0
    assert {tuple(POPULATION[row]) for row in hidden.numpy()} == {("a", "a", "a"), ("b", "b"), ("c",)}


def test_evaluations_hide_their_share_as_zeros_and_training_its_own(layout: Layout) -> None:
    config = Config(mask_ratio=0.2, evaluated_ratio=0.5, mask_token_ratio=0.5, mask_random_ratio=0.0)
    network, batch = NDT(config, 0).build(layout), windows(400)
    batch.counts.clamp_(min=1)
    for step, share, zeros in ((0, 0.2, 0.5), (None, 0.5, 1.0)):
        made = network.prepare(batch, step).inputs
        scored, hidden = made["scored"], made["shown"] == 0
        assert float(scored.float().mean()) == pytest.approx(share, abs=0.02)
        assert float(hidden[scored].float().mean()) == pytest.approx(zeros, abs=0.02)
        assert not hidden[~scored].any()


def test_an_empty_batch_and_one_without_spikes_are_no_trouble() -> None:
    silent = windows(3)
    silent.counts.zero_()
    for compat in (False, True):
        config = Config(mask_token_ratio=0.5, compat=compat)
        inputs, scored = mask_batch(silent, "element", config, 1, REGION)
        assert not inputs.any() and scored.any()


def test_what_is_never_an_input_is_always_a_target() -> None:
    batch = windows(history=4, heldout=(1, 5), forward=3)
    inputs, scored = mask_batch(batch, "timestep", Config(), 1, REGION)
    assert not inputs[:, :, [1, 5]].any() and not inputs[:, -3:].any()
    assert scored[:, 4:, [1, 5]].all() and scored[:, -3:].all()
    assert not scored[:, :4].any()
    batch.observed[:, 10:20, 1] = False
    assert not mask_batch(batch, "timestep", Config(), 1, REGION)[1][:, 10:20, 1].any()


def test_modes_hide_what_they_say() -> None:
    batch = windows()
    hidden, scored = (each.expand(batch.counts.shape) for each in choose(batch, "neuron", 0.3, 1, REGION))
    assert torch.equal(hidden, scored) and torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert hidden.float().mean() == pytest.approx(0.3, abs=0.05)
    assert len(hidden[:, 0].unique(dim=0)) > 20  # drawn for each window

    hidden, scored = choose(batch, "causal", 0.25, 1, REGION)
    assert (hidden[:, :30].sum(), hidden[:, 30:].all()) == (0, True) and torch.equal(hidden, scored)
    hidden, _ = choose(windows(2, history=8), "causal", 0.25, 1, REGION)  # a share of the window, not of its history
    assert (hidden[:, :32].sum(), hidden[:, 32:].all()) == (0, True)
    short = windows(2)
    short.bins[1] = 20  # and of each window, not of the longest
    hidden, _ = choose(short, "causal", 0.25, 1, REGION)
    assert [row.nonzero()[:, 0].tolist()[0] for row in hidden] == [30, 15]

    hidden, scored = (each.expand(batch.counts.shape)[:, 0] for each in choose(batch, "inter_region", 0.3, 1, REGION))
    assert torch.equal(hidden, scored)
    regions = {tuple(row) for row in hidden.int().tolist()}
    assert regions == {(1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 0, 0, 1)}

    hidden, scored = (each.expand(batch.counts.shape)[:, 0] for each in choose(batch, "intra_region", 0.3, 1, REGION))
    assert (hidden | ~scored).all()
    for row, target in zip(hidden.tolist(), scored.tolist(), strict=True):
        inside = {POPULATION[unit] for unit in range(UNITS) if not row[unit] or target[unit]}
        assert len(inside) <= 1  # what is shown, or scored, lies in one region


def test_in_an_evaluation_every_target_is_predicted_once() -> None:
    batch = windows(3, 20)
    heldin = [0, 1, 3, 4, 5]
    for mode in ("leave_one_out", "intra_region", "inter_region"):
        total = torch.zeros(batch.counts.shape, dtype=torch.int)
        for hidden, scored in hidden_in_turn(batch, mode, POPULATION, heldin, 0):
            total += scored.expand(batch.counts.shape)
            own = REGION[scored][0] == REGION
            assert torch.equal(
                hidden, {"leave_one_out": scored, "intra_region": scored | ~own, "inter_region": own}[mode]
            )
        assert (total[:, :, heldin] == 1).all() and (total[:, :, 2] == 0).all()
    batch.bins[1] = 15
    ((hidden, scored),) = hidden_in_turn(batch, "causal", POPULATION, heldin, 4)
    assert [row.nonzero()[:, 0].tolist() for row in scored[:2]] == [[16, 17, 18, 19], [11, 12, 13, 14]]
    assert torch.equal(hidden, scored)
