"""What is shown and what is learned from: never the same, and without bias."""

from dataclasses import replace

import pytest
import torch

from pipeline_lib.models.lfads.concealment import HIDDEN, conceal, kept_counts
from pipeline_lib.models.lfads.noise import chosen, dropout_mask, standard_normal
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.training.batches import Batch

BINS, WINDOWS, UNITS = 40, 300, 6
MEAN = torch.full((UNITS,), 0.5)


def batch(heldout: list[int] | None = None, forward: int = 0) -> Batch:
    torch.manual_seed(0)
    counts = torch.poisson(torch.full((WINDOWS, BINS, UNITS), 0.5)).to(torch.uint8)
    observed = torch.ones_like(counts, dtype=torch.bool)
    visible = observed.clone()
    visible[:, :, heldout or []] = False
    visible[:, BINS - forward :] = False
    return Batch("s", counts, observed, visible, torch.full((WINDOWS,), BINS), 0)


@pytest.mark.parametrize("pass_rate", [0.0, 0.4])
def test_an_entry_is_an_input_or_a_target(pass_rate: float) -> None:
    config = Config(coordinated_dropout=0.3, pass_rate=pass_rate)
    made = batch()
    made.counts.clamp_(min=1)
    shown = conceal(made, config, None, MEAN, 0, 0, drop=True)
    visible = shown.inputs > 0
    assert float(visible.float().mean()) == pytest.approx(0.7, abs=0.01)
    assert torch.allclose(shown.inputs[visible], shown.counts[visible] / 0.7)
    assert shown.scored[~visible].all()
    assert float(shown.scored[visible].float().mean()) == pytest.approx(pass_rate, abs=0.01)
    assert float((shown.scored * shown.worth).mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("ragged", [False, True])
def test_what_is_never_an_input_is_always_a_target(ragged: bool) -> None:
    config = Config(coordinated_dropout=0.3)
    made = replace(batch(heldout=[1, 4], forward=5), ragged=ragged)
    heldin = torch.tensor([0, 2, 3, 5])
    shown = conceal(made, config, heldin, MEAN, 5, 0, drop=True)
    assert shown.inputs.shape == (BINS, WINDOWS, 4)
    assert (shown.inputs[-5:] == 0.5).all()  # not known: the mean
    assert not shown.present[-5:].any() and shown.present[:-5].all()
    always = torch.zeros(BINS, UNITS, dtype=torch.bool)
    always[-5:] = always[:, [1, 4]] = True
    always = always[:, None].expand(-1, WINDOWS, -1)
    assert shown.scored[always].all() and (shown.worth[always] == 1).all()
    assert torch.allclose(shown.worth[~always], torch.tensor(1 / 0.3))
    assert float((shown.scored * shown.worth)[~always].mean()) == pytest.approx(1, abs=0.02)


def test_the_first_segment_is_shown_whole_and_learned_from() -> None:
    shown = conceal(batch(), Config(), None, MEAN, 0, 10, drop=True)
    assert torch.allclose(shown.inputs[:10], shown.counts[:10].float())
    assert shown.scored[:10].all() and (shown.worth[:10] == 1).all()
    assert not shown.scored[10:].all()


def test_a_first_segment_is_the_same_where_spikes_are_few() -> None:
    made = batch()
    made.counts.copy_(torch.rand(made.counts.shape) < 0.05)
    shown = []
    for sparse in (True, False):
        torch.manual_seed(1)
        shown.append(conceal(made, Config(), None, MEAN, 0, 10, drop=True, sparse=sparse).inputs)
    assert isinstance(shown[0], torch.Tensor) and torch.equal(*shown)


@pytest.mark.parametrize(("single", "pass_rate"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.5)])
def test_a_hidden_unit_is_hidden_for_a_whole_window_and_learned_from(single: float, pass_rate: float) -> None:
    config = Config(coordinated_dropout=single, hide_units=0.4, pass_rate=pass_rate)
    heldin = torch.tensor([0, 2, 3, 5])
    made = batch(heldout=[1, 4])
    made.counts.clamp_(min=1)
    shown = conceal(made, config, heldin, MEAN, 0, 0, drop=True)
    counts, scored, worth = (each[..., heldin] for each in (shown.counts, shown.scored, shown.worth))
    hidden = shown.inputs == 0.5  # their mean, which no count is
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))
    assert float(hidden[0].float().mean()) == pytest.approx(0.4, abs=0.04)
    assert hidden[0].any(1).float().mean() > 0.8 and hidden[0].any(0).all()  # drawn for each window and unit
    dropped = shown.inputs == 0
    assert torch.allclose(shown.inputs[~hidden & ~dropped], counts[~hidden & ~dropped] / (1 - single))
    assert float(dropped[~hidden].float().mean()) == pytest.approx(single, abs=0.01)
    assert scored[hidden | dropped].all()
    assert float(scored[~hidden & ~dropped].float().mean()) == pytest.approx(pass_rate, abs=0.01)
    assert shown.scored[..., [1, 4]].all() and (shown.worth[..., [1, 4]] == 1).all()
    loss = 1 + counts.float() ** 2  # of an entry: any
    assert float((loss * scored * worth).sum() / loss.sum()) == pytest.approx(1, abs=0.03)


def test_hidden_counts_reach_no_encoder() -> None:
    config = Config(coordinated_dropout=0.0, hide_units=0.4)
    made = batch()
    made.counts.copy_(torch.rand(made.counts.shape) < 0.05)  # few enough to be given as `Spikes`
    torch.manual_seed(1)
    first = conceal(made, config, None, MEAN, 0, 0, drop=True, sparse=True)
    hidden = (first.inputs == 0.5).transpose(0, 1)
    other = replace(made, counts=torch.where(hidden, made.counts + 7, made.counts))
    torch.manual_seed(1)
    assert torch.equal(conceal(other, config, None, MEAN, 0, 0, drop=True, sparse=True).inputs, first.inputs)


def test_the_first_segment_of_a_hidden_unit_is_hidden_too() -> None:
    made = batch()
    made.counts.clamp_(min=1)
    shown = conceal(made, Config(coordinated_dropout=0.3, hide_units=0.4), None, MEAN, 0, 10, drop=True)
    hidden = shown.inputs == 0.5
    assert torch.equal(hidden, hidden[-1:].expand_as(hidden)) and hidden.any()
    assert torch.allclose(shown.inputs[:10][~hidden[:10]], shown.counts[:10][~hidden[:10]].float())
    assert shown.scored[:10].all() and (shown.worth[:10] == 1).all()


def test_a_prediction_hides_nothing() -> None:
    made, config = batch(heldout=[1, 4]), Config(hide_units=0.4)
    heldin = torch.tensor([0, 2, 3, 5])
    torch.manual_seed(1)
    shown = conceal(made, config, heldin, MEAN, 0, 0, drop=False)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(shown.inputs, shown.counts[..., heldin].float()) and shown.scored.all()


def test_history_and_what_was_not_observed_is_not_learned_from() -> None:
    made = replace(batch(), history=7)
    made.observed[3, 20:] = made.visible[3, 20:] = False
    before = made.observed.clone()
    shown = conceal(made, Config(), None, MEAN, 0, 0, drop=True)
    assert not shown.scored[:7].any() and not shown.scored[20:, 3].any() and shown.scored[7:20, 3].any()
    assert torch.equal(made.observed, before)
    single = replace(made, **{name: getattr(made, name)[:1] for name in ("counts", "observed", "visible", "bins")})
    conceal(single, Config(), None, MEAN, 0, 0, drop=True)
    assert torch.equal(made.observed, before)


def test_counts_kept_for_validation_are_neither_shown_nor_learned_from() -> None:
    made = batch()
    made.counts.clamp_(min=1)
    kept = torch.rand(made.counts.shape) < 0.2
    made = replace(made, inputs={HIDDEN: kept})
    for drop in (False, True):
        shown = conceal(made, Config(sample_validation=0.2), None, MEAN, 0, 0, drop=drop)
        hidden = kept.transpose(0, 1)
        assert (shown.inputs[hidden] == 0).all() and not shown.scored[hidden].any()
        assert float(shown.inputs.mean()) == pytest.approx(float(shown.counts.float().mean()), rel=0.02)
    made.observed[0] = False
    scored = kept_counts(replace(made, history=3))  # what validation scores: never the history
    assert torch.equal(scored[1:, 3:], kept[1:, 3:]) and not scored[:, :3].any() and not scored[0].any()


def test_masks_have_their_share() -> None:
    torch.manual_seed(0)
    for probability in (0.013, 0.3, 0.9):
        drawn = chosen((301, 803), probability, torch.zeros(1)).float()
        assert float(drawn.mean()) == pytest.approx(probability, abs=0.003)
        assert drawn.mean(0).std() < 0.04 and drawn.mean(1).std() < 0.03
    assert chosen((50, 50), 1.0, torch.zeros(1)).all()
    assert not chosen((50, 50), 1e-9, torch.zeros(1)).all()
    mask = dropout_mask((500, 500), 0.2, torch.zeros(1))
    assert float(mask.mean()) == pytest.approx(1, abs=0.01) and set(mask.unique().tolist()) == {0.0, 1.25}


def test_noise_belongs_to_a_window() -> None:
    first = standard_normal(3, torch.tensor([5, 9]), 0, 1000)
    again = standard_normal(3, torch.tensor([9, 1, 5]), 0, 1000)
    assert torch.equal(first[0], again[2]) and torch.equal(first[1], again[0])
    assert torch.equal(standard_normal(3, torch.tensor([5]), 0, 333)[0], first[0, :333])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], standard_normal(3, torch.tensor([5]), 1, 1000)[0])
    assert not torch.equal(first[0], standard_normal(4, torch.tensor([5]), 0, 1000)[0])
    assert abs(float(first.mean())) < 0.1 and abs(float(first.std()) - 1) < 0.1
