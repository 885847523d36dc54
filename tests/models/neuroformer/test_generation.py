"""What is written is what the likelihood says, in order, repeatable, and the same with and without kept keys."""

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.neuroformer import drafts
from pipeline_lib.models.neuroformer.context import Context
from pipeline_lib.models.neuroformer.drafts import Draft, judged, left_over, unit_probabilities
from pipeline_lib.models.neuroformer.generation import generate, put, write
from pipeline_lib.models.neuroformer.network import Neuroformer
from pipeline_lib.models.neuroformer.reading import Last
from pipeline_lib.models.neuroformer.sampling import Sampling, pick
from pipeline_lib.models.neuroformer.session import Head
from pipeline_lib.models.neuroformer.tokens import Tokens
from tests.models.neuroformer.small import batch, network, poisson, with_settings, write_anew


def empty(made: Neuroformer, samples: int = 8) -> tuple[Neuroformer, Head, Context, torch.Tensor]:
    """Windows to be written: network, head, what they attend to and their widths."""
    windows = made.windows(batch(poisson(samples, 35, rate=0.4)))
    with torch.inference_mode():
        return made, made.head("one"), made.context(made.head("one"), windows.past), windows.cut.width


def written(made: Neuroformer, sampling: Sampling, seed: int = 0, samples: int = 8) -> tuple[Tokens, torch.Tensor]:
    windows = empty(made, samples)
    return write(*windows, sampling, torch.Generator().manual_seed(seed)), windows[-1]


def same(one: Tokens, other: Tokens) -> bool:
    return torch.equal(one.unit, other.unit) and torch.equal(one.bin, other.bin) and torch.equal(one.real, other.real)


@pytest.mark.parametrize(("layers", "spread"), [(1, 0.3), (2, 0.2)])
def test_kept_keys_change_no_token(layers: int, spread: float) -> None:
    made = network(spread=spread, config=with_settings(layers_state=layers, layers_past=layers))
    greedy = Sampling(temperature=0, most=40)
    kept, _ = written(made, greedy, samples=4)
    anew = write_anew(*empty(made, 4), greedy)
    assert same(kept, anew) and len(set(kept.count.tolist())) > 2 and int(kept.count.max()) > 3
    drawn, redrawn = (written(made, Sampling(), 3)[0] for _ in range(2))
    assert same(drawn, redrawn) and not same(drawn, written(made, Sampling(), 4)[0])
    assert same(written(made, Sampling(top_k=1, most=40), samples=4)[0], kept)


def test_tokens_are_in_order_and_inside_the_window() -> None:
    made = network(spread=0.6)
    tokens, width = written(made, Sampling(most=60))
    assert int(tokens.count.sum()) > 50
    key = (tokens.bin * 6 + tokens.unit).masked_fill(~tokens.real, 10_000)
    assert bool((key.diff(dim=1) >= 0).all())
    assert bool((tokens.bin < width[:, None])[tokens.real].all())


@pytest.mark.parametrize(
    ("ahead", "layers", "spread"), [(0, 1, 0.2), (1, 2, 0.2), (6, 1, 0.2), (6, 1, 0.5), (40, 1, 0.2)]
)
def test_a_window_written_alone_is_the_one_written_among_others(ahead: int, layers: int, spread: float) -> None:
    """Side by side, one by one, and in drafts that the network judges: the same greedy tokens."""
    made = network(spread=spread, config=with_settings(layers_state=layers, layers_past=layers))
    greedy = Sampling(temperature=0, most=40)
    made, head, context, width = empty(made, 3)
    together = write_anew(made, head, context, width, greedy)
    assert len(set(together.count.tolist())) > 1
    for row in range(len(width)):
        one = torch.tensor([row])
        alone = write(made, head, context.rows(one), width[one], greedy, ahead=ahead)
        count = int(together.count[row])
        assert int(alone.count) == count and torch.equal(alone.unit[0, :count], together.unit[row, :count])
        assert torch.equal(alone.bin[0, :count], together.bin[row, :count])


def test_of_two_windows_that_are_drafted_each_has_its_own_width() -> None:
    made, head, context, _ = empty(network(spread=0.2), 1)
    rows, width, greedy = torch.tensor([0, 1]), torch.tensor([2, 5]), Sampling(temperature=0, most=40)
    both = write(made, head, context.rows(rows), width, greedy)
    together = write_anew(made, head, context.rows(rows), width, greedy)
    assert same(both, together) and int(both.bin[0].max()) < 2 < int(both.bin[1].max())


def test_what_a_draft_leaves_over_makes_up_for_it() -> None:
    """Of an outcome that is drafted with probability q, min(p, q) stays; what is drawn anew must give the rest."""
    p, q = (torch.softmax(torch.randn(1, 9, generator=torch.Generator().manual_seed(seed)), 1) for seed in (0, 1))
    stays = torch.minimum(p, q)
    rest = left_over(p, q)
    assert torch.allclose(stays + (1 - stays.sum()) * rest / rest.sum(), p, atol=1e-6)
    assert torch.equal(left_over(p, p), p)
    drawn = 4000
    token = q.expand(drawn, -1).multinomial(1, generator=torch.Generator().manual_seed(2))[:, 0]
    certain = torch.ones(1, 1)
    kept = torch.zeros(9)
    generator = torch.Generator().manual_seed(3)
    for each in token.tolist():
        draft = Draft(torch.tensor([each]), torch.tensor([0]), q, certain)
        kept[each] += judged(draft, p, certain, generator)[0]
    assert torch.allclose(kept / drawn, stays[0], atol=0.03)


def test_unit_and_bin_of_a_drafted_token_are_judged_apart() -> None:
    """Each is drafted twice as often as the network would draw it: both stay in a quarter of all drafts."""
    drafted, wanted = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    draft, generator = Draft(torch.tensor([0]), torch.tensor([0]), drafted, drafted), torch.Generator().manual_seed(0)
    verdicts = [judged(draft, wanted, wanted, generator) for _ in range(2000)]
    assert np.mean([stay for stay, _ in verdicts]) == pytest.approx(0.25, abs=0.04)
    assert np.mean([bin_stays for stay, bin_stays in verdicts if not stay]) == pytest.approx(1 / 3, abs=0.05)


def test_what_was_judged_out_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token goes only where it was drafted too often; what is drawn in its place makes up for that."""
    made, verdicts = network(spread=0.4), []

    def watched(draft: Draft, *laws: object) -> tuple[int, bool]:
        verdicts.append((draft, *judged(draft, *laws)))  # type: ignore[arg-type]
        return verdicts[-1][1:]

    monkeypatch.setattr(drafts, "judged", watched)
    made, head, context, width = empty(made, 20)
    bins, units = 0, 0
    for row in torch.arange(len(width)).split(1):
        verdicts.clear()
        generator = torch.Generator().manual_seed(int(row))
        tokens = write(made, head, context.rows(row), width[row], Sampling(most=40), generator, ahead=3)
        place = 0
        for draft, stay, bin_stays in verdicts:
            place += stay
            if stay < len(draft.bin) and place < int(tokens.count):
                assert bool(tokens.bin[0, place] == draft.bin[stay]) is bin_stays
                assert not bin_stays or tokens.unit[0, place] != draft.unit[stay]
                bins, units = bins + (not bin_stays), units + bin_stays
            place += 1
    assert bins > 20 and units > 20


def test_a_window_that_never_ends_has_as_many_tokens_as_asked_for() -> None:
    made = network()
    with torch.no_grad():
        made.when.bias.copy_(torch.tensor([50.0, 0, 0, 0, 0, -50.0]))
    made, head, context, width = empty(made, 1)
    for ahead in (0, 3):
        tokens = write(made, head, context.rows(torch.arange(2)), width[:2], Sampling(most=11), None, ahead)
        assert tokens.count.tolist() == [11, 11]


def test_drafted_windows_are_drawn_from_the_network() -> None:
    """Spikes a bin and unit over many windows of one past, with and without drafts; heads far from the law."""
    made = network(spread=0.25)
    windows = made.windows(batch(poisson(1, 15, rate=0.4)))
    head, rows = made.head("one"), torch.zeros(3000, dtype=torch.int64)
    with torch.inference_mode():
        context = made.context(head, windows.past)

    def moments(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
        counts = np.zeros((len(tokens.count), 5, 6))
        row = tokens.real.nonzero()[:, 0]
        np.add.at(counts, (row, tokens.bin[tokens.real], tokens.unit[tokens.real]), 1)
        values = np.concatenate([counts.reshape(len(counts), -1), counts.sum((1, 2))[:, None]], 1)
        return values.mean(0), values.var(0)

    many = context.rows(rows)
    mean, variance = moments(
        write(made, head, many, windows.cut.width[rows], Sampling(), torch.Generator().manual_seed(0))
    )
    generator = torch.Generator().manual_seed(1)
    drafted = [write(made, head, context, windows.cut.width, Sampling(), generator, ahead=3) for _ in range(250)]
    counts = torch.stack([each.count[0] for each in drafted])
    longest = max(each.unit.shape[1] for each in drafted)
    unit, bin, real = (
        torch.cat([torch.nn.functional.pad(getattr(each, name), (0, longest - each.unit.shape[1])) for each in drafted])
        for name in ("unit", "bin", "real")
    )
    own, _ = moments(Tokens(unit, bin, real, counts))
    score = ((own - mean) / np.sqrt(variance * (1 / len(drafted) + 1 / len(rows))))[mean * len(drafted) >= 5]
    assert len(score) > 15 and np.abs(score).max() < 3.9 and np.abs(score[-1]) < 3
    untrained = network(spread=0.0).head("one").expected.numpy()
    assert np.abs(mean[:30].reshape(5, 6) / untrained - 1).max() > 0.5


def test_drafts_that_the_network_would_have_drawn_save_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law is all that a network knows before training: every draft stays, one token is drawn after each."""
    made, passes = network(units=40, spread=0.0), []
    states = made.states
    monkeypatch.setattr(made, "states", lambda *given: passes.append(len(given[0])) or states(*given))
    windows = made.windows(batch(poisson(2, 15, 40)))
    context, width = made.context(made.head("one"), windows.past), windows.cut.width
    tokens = write(made, made.head("one"), context, width, Sampling(), torch.Generator().manual_seed(0), ahead=4)
    assert int(tokens.count.min()) > 20 and set(passes) <= {1, 5}
    # In fives, the end cuts the last draft short; the first token of each window has none before it.
    assert len(passes) == sum(2 + (int(count) - 1) // 5 for count in tokens.count)


@pytest.mark.parametrize("true_past", [False, True])
def test_nothing_is_dropped_while_a_network_in_training_writes(true_past: bool) -> None:
    made, given = network(config=with_settings(dropout=0.5)), batch(poisson(3, 20, rate=0.4))
    expected = generate(made, given, Sampling(), 0, true_past)
    assert torch.equal(generate(made.train(), given, Sampling(), 0, true_past), expected)
    windows, likeliest = empty(made.eval()), Sampling(temperature=0, most=40)
    tokens = write(*windows, likeliest)
    made.train()
    assert same(write(*windows, likeliest), tokens)


def test_an_untrained_network_writes_poisson_spikes() -> None:
    made = network(spread=0.0)
    counts = generate(made, batch(np.zeros((150, 60, 6))), Sampling(), 1)[:, 10:].double().numpy()
    mean, rate = made.head("one").expected.numpy(), counts.mean((0, 1))
    error = np.sqrt(mean / counts[..., 0].size)
    assert (np.abs(rate - mean) < 4 * error + 0.004).all(), rate / mean
    assert abs(np.corrcoef(counts[:, :-1, 5].ravel(), counts[:, 1:, 5].ravel())[0, 1]) < 0.05


def test_a_unit_that_never_fires_twice_may_be_the_first_in_the_first_bin() -> None:
    """The start of a window is nobody's spike, written side by side or drafted."""
    made = network(spread=0.0)
    head, windows = made.head("one"), made.windows(batch(np.zeros((500, 15, 6))))
    head.again.data.fill_(-20.0)
    context, fires = made.context(head, windows.past), 1 - (-head.expected).exp()
    tokens = write(made, head, context, windows.cut.width, Sampling(), torch.Generator().manual_seed(0))
    counts = put(torch.zeros(500, 5, 6, dtype=torch.int64), tokens, torch.zeros(500, dtype=torch.int64), 1)
    assert int(counts.max()) == 1
    assert bool(((counts.double().mean(0) - fires).abs() < 4 * (fires / 500).sqrt()).all())
    none = torch.zeros(1, dtype=torch.int64)
    drafted = unit_probabilities(made, head, torch.zeros(1, 16), Last(none, none - 1, none + 5, None), none, Sampling())
    first = fires * (head.expected - head.expected.cumsum(0)).exp()
    assert torch.allclose(drafted[0], first / first.sum(), atol=1e-6)


def test_filters_leave_the_most_probable_over() -> None:
    logs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)

    def shares(sampling: Sampling) -> np.ndarray:
        return np.bincount(sampling.draw(logs, generator), minlength=4) / 4000

    assert np.allclose(shares(Sampling()), [0.5, 0.3, 0.15, 0.05], atol=0.03)
    assert np.allclose(shares(Sampling(top_k=2)), [0.625, 0.375, 0, 0], atol=0.03)
    assert np.allclose(shares(Sampling(top_k=3)), [0.526, 0.316, 0.158, 0], atol=0.03)
    assert np.allclose(shares(Sampling(top_p=0.9)), [0.526, 0.316, 0.158, 0], atol=0.03)
    assert np.allclose(shares(Sampling(temperature=0.5)), np.array([25, 9, 2.25, 0.25]) / 36.5, atol=0.03)
    impossible = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).log().repeat(4000, 1)
    assert (Sampling().draw(impossible, generator) == 1).all()


def test_the_only_outcome_with_any_weight_is_drawn_however_little_it_is() -> None:
    """What a draft leaves over can be so little that any share of it is rounded to the whole."""
    weights = torch.tensor([[0.0, 1e-45, 0.0]]).repeat(100, 1)
    assert (pick(weights, torch.Generator().manual_seed(0)) == 1).all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("temperature", -0.1), ("temperature", np.inf), ("top_p", 0.0), ("top_p", 1.1), ("top_k", 0), ("most", 0)],
)
def test_sampling_that_cannot_be_is_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=setting):
        Sampling(**{setting: value})


def test_nothing_is_written_after_the_end_of_a_sample() -> None:
    """And the first window of each is the same whether its past goes on as recorded or as written."""
    made, lengths = network(spread=0.5), np.array([35, 17, 24])
    given = batch(poisson(3, 35, rate=0.4), bins=lengths)
    one, other = (generate(made, given, Sampling(temperature=0, most=40), 0, true) for true in (True, False))
    for sample, length in enumerate(lengths):
        assert not one[sample, length:].any() and not other[sample, length:].any()
        assert one[sample, 10:length].any()
    assert torch.equal(one[:, :15], other[:, :15]) and torch.equal(one[:, :10], given.counts[:, :10].long())
    alone = generate(made, batch(given.counts[1:2, :17].numpy()), Sampling(temperature=0, most=40), 0)
    assert torch.equal(alone[0], other[1, :17])


@pytest.mark.parametrize("true_past", [False, True])
def test_a_limit_holds_for_the_past_that_is_written_from_too(true_past: bool) -> None:
    """The network has learned from the latest three spikes: earlier ones would be new to it."""
    counts = np.zeros((2, 20, 6), dtype=int)
    counts[:, 8, :3] = 1
    earlier = counts.copy()
    earlier[:, 5:8] = 2
    for limit, seen in ((3, False), (None, True)):
        made = network(spread=0.5, config=with_settings(limit=limit))
        one, other = (
            generate(made, batch(each), Sampling(temperature=0, most=40), 0, true_past)[:, 10:15]
            for each in (counts, earlier)
        )
        assert torch.equal(one, other) is not seen


def test_a_seed_gives_its_spikes_and_another_seed_others() -> None:
    made, given = network(), batch(poisson(3, 20, rate=0.4))
    one, again, other = (generate(made, given, Sampling(), seed) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_forward_bins_are_no_past_either() -> None:
    """Nobody may see their spikes, the windows written after them neither."""
    made, counts = network(spread=0.5), poisson(2, 35, rate=0.3)
    changed = counts.copy()
    changed[:, 25:] = 3
    written = []
    for each in (counts, changed):
        given = batch(each)
        given.visible[:, 25:] = False
        written.append(generate(made, given, Sampling(temperature=0, most=40), 0, true_past=True))
    assert torch.equal(*written) and written[0][:, 30:].any()


def test_the_past_is_true_or_generated() -> None:
    """With true past, spikes of the record change what follows; with generated past only the history does."""
    made = network(spread=0.5)
    counts = poisson(2, 35, rate=0.3)
    changed = counts.copy()
    changed[:, 16] += 2
    greedy = Sampling(temperature=0, most=40)
    for true_past in (True, False):
        one, other = (generate(made, batch(each), greedy, 0, true_past) for each in (counts, changed))
        assert torch.equal(one[:, :10], torch.as_tensor(counts[:, :10]))
        assert torch.equal(one[:, 10:15], other[:, 10:15])
        assert torch.equal(one[:, 20:], other[:, 20:]) is not true_past
