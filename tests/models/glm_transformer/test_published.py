"""Weights of the public code give its log-rates here."""

from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm_transformer.published import area_sizes, load_published
from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.training.batches import Batch
from tests.models.glm_transformer.plain import PlainGLMTransformer

UNITS = {"a": [5, 4, 3], "b": [2, 6, 4]}
BINS, HISTORY = 60, 12
VARIANTS = {
    "tutorial": {},
    "rank 2": {"rank": 2},
    "linear decoders": {"decoder": 0},
    "one of each for all": {"area_specific": False},
    "other bases": {"coupling": (7, 4), "past": (2, 3, 0.7), "factors": 1, "layers": 1},
}


def saved(path: Path, **settings: object) -> PlainGLMTransformer:
    """A network whose weights are all random, as the public code saves it."""
    torch.manual_seed(3)
    network = PlainGLMTransformer(UNITS, BINS, HISTORY, **settings).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    torch.save(network.state_dict(), path)
    return network


def settings_of(coupling: tuple = (5, 3), past: tuple = (1.5, 2, 1.0), **others: object) -> Config:
    """What the tensors do not tell, in seconds of 2-ms bins."""
    return Config(coupling_peak=coupling[0] * 0.002, history_peak=past[0] * 0.002, history_stretch=past[2])


def batch_of(counts: torch.Tensor, session: str, history: int = HISTORY) -> Batch:
    """Counts (trial, bin, unit), all observed."""
    ones = torch.ones_like(counts, dtype=torch.bool)
    return Batch(session, counts, ones, ones, torch.full((len(counts),), counts.shape[1]), history)


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_rates_are_those_of_the_public_network(variant: str, tmp_path: Path) -> None:
    plain = saved(tmp_path / "weights.pth", **VARIANTS[variant])
    model = load_published(tmp_path / "weights.pth", settings_of(**VARIANTS[variant]), BINS, HISTORY)
    for session in UNITS:
        counts = torch.poisson(torch.full((6, BINS + HISTORY, 12), 0.2)).to(torch.uint8)
        with torch.inference_mode():
            ours = model.network.components(batch_of(counts, session))
            theirs, _, posterior = plain.parts(counts.permute(1, 2, 0).float(), session)
            rates = model.network.rates(batch_of(counts, session))[:, HISTORY:]
            mean, log_variance = model.network.encode(batch_of(counts, session))
        for name, part in theirs.items():
            assert torch.allclose(ours[name], part.permute(2, 0, 1), atol=1e-5, rtol=0), name
        assert torch.allclose(rates.log(), sum(theirs.values()).permute(2, 0, 1), atol=1e-5, rtol=0)
        assert torch.allclose(mean.flatten(1), posterior[0], atol=1e-5)
        assert torch.allclose(log_variance.flatten(1), posterior[1], atol=1e-5)


def test_what_was_loaded_can_be_saved_and_loaded(tmp_path: Path) -> None:
    saved(tmp_path / "weights.pth")
    model = load_published(tmp_path / "weights.pth", settings_of(), BINS, HISTORY)
    assert not model.network.training
    again = type(model)(model.config, 0)
    again.load_state(model.state())
    counts = torch.poisson(torch.full((6, BINS + HISTORY, 12), 0.2)).to(torch.uint8)
    with torch.inference_mode():
        rates = [each.network.eval().rates(batch_of(counts, "a")) for each in (model, again)]
    assert torch.equal(*rates)


def test_populations_go_by_their_number_and_not_by_their_place_in_the_file() -> None:
    sizes = {10: 5, 2: 3, 0: 4}
    given = {f"sti_readout_matrix_dict.a.{area}.bias": torch.zeros(size) for area, size in sizes.items()}
    assert area_sizes(given) == {"a": [4, 3, 5]}


def test_anything_else_is_refused_in_a_line(tmp_path: Path) -> None:
    text = tmp_path / "text.pth"
    text.write_text("weights")
    with pytest.raises(InputError, match="a state dict of tensors"):
        load_published(text)
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="sti_readout_matrix_dict"):
        load_published(tmp_path / "other.pth")
    plain = saved(tmp_path / "weights.pth")
    short = {name: value for name, value in plain.state_dict().items() if not name.startswith("to_latent.bias")}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(InputError, match=r"to_latent\.bias"):
        load_published(tmp_path / "short.pth", settings_of(), BINS, HISTORY)
    for group in ("cp_beta_coupling", "beta_self_history", "sti_decoder", "transformer_encoder"):
        others = {name: value for name, value in plain.state_dict().items() if not name.startswith(group)}
        torch.save(others, tmp_path / "others.pth")
        with pytest.raises(InputError, match="the tensors of a GLM-Transformer"):
            load_published(tmp_path / "others.pth", settings_of(), BINS, HISTORY)
    torch.save(plain.state_dict() | {"sti_inhomo": torch.ones(3)}, tmp_path / "flat.pth")
    with pytest.raises(InputError, match="the tensors of a GLM-Transformer"):
        load_published(tmp_path / "flat.pth", settings_of(), BINS, HISTORY)
