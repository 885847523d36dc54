"""Weights of the public code give its log-rates here."""

from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.ndt.published import load_published
from pipeline_lib.models.ndt.settings import Config
from tests.models.ndt.plain import PlainNDT

VARIANTS = {
    "lorenz": {},
    "chaotic (post-norm)": {"pre_norm": False},
    "maze (identity)": {"embedding": 0, "units": 8},
    "sinusoids": {"sinusoid": True},
    "scale norm": {"scale_norm": True, "activation": "gelu"},
    "two-layer read-out": {"two_layers": True, "backward": None},
    "full context, odd width": {"backward": None, "forward": None, "units": 7, "heads": 7, "embedding": 3},
}


def saved(path: Path, units: int = 6, **settings: object) -> PlainNDT:
    """A network whose weights are all random, biases and norms included, saved as the public code saves it."""
    torch.manual_seed(1)
    network = PlainNDT(units=units, bins=12, layers=3, hidden=16, **settings).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    torch.save(network.state_dict(), path)
    return network


def seconds(bins: int | None) -> float | None:
    return None if bins is None else bins * 0.02


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_rates_are_those_of_the_public_network(variant: str, tmp_path: Path) -> None:
    settings = VARIANTS[variant]
    plain = saved(tmp_path / "weights.pth", **settings)
    config = Config(
        heads=settings.get("heads", 2),
        norm="pre" if settings.get("pre_norm", True) else "post",
        activation=settings.get("activation", "relu"),
        context_backward=seconds(settings.get("backward", 8)),
        context_forward=seconds(settings.get("forward", 4)),
    )
    model = load_published(tmp_path / "weights.pth", config)
    counts = torch.poisson(torch.full((5, 12, settings.get("units", 6)), 0.7)).to(torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(model.network.outputs("published", counts), plain(counts), atol=2e-5, rtol=0)


def test_a_checkpoint_may_hold_the_state_dict(tmp_path: Path) -> None:
    plain = saved(tmp_path / "weights.pth")
    torch.save({"state_dict": plain.state_dict(), "best_val": 0.3}, tmp_path / "checkpoint.pth")
    model = load_published(tmp_path / "checkpoint.pth", Config())
    counts = torch.ones(2, 12, 6, dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(model.network.outputs("published", counts), plain(counts), atol=2e-5, rtol=0)


def test_anything_else_is_refused_in_a_line(tmp_path: Path) -> None:
    text = tmp_path / "text.pth"
    text.write_text("weights")
    with pytest.raises(InputError, match="a state dict of tensors"):
        load_published(text, Config())
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no pos_encoder"):
        load_published(tmp_path / "other.pth", Config())
    plain = saved(tmp_path / "weights.pth")
    torch.save(plain.state_dict() | {"spatial.weight": torch.ones(3)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"spatial\.weight"):
        load_published(tmp_path / "more.pth", Config())
