"""Weights in the layout of the public code give the logits that its description gives."""

from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.neuroformer.public import public_rows
from pipeline_lib.models.neuroformer.published import load_published
from pipeline_lib.models.neuroformer.tokens import tokens_of_counts
from tests.models.neuroformer.plain import logits, random_state
from tests.models.neuroformer.small import poisson


@pytest.mark.parametrize("with_frames", [False, True])
def test_the_same_logits(tmp_path: Path, with_frames: bool) -> None:
    state = random_state(with_frames)
    torch.save(state, tmp_path / "model.pt")
    network = load_published(tmp_path / "model.pt", heads=4)
    counts = torch.as_tensor(poisson(6, 10, units=10, rate=0.1))
    now = public_rows(tokens_of_counts(counts[:, 5:], 10), 10, 5, 12)
    past = public_rows(tokens_of_counts(counts[:, :5], 22, latest=True), 10, 5, 24)
    rows, before = (now[0][:, :-1], now[1][:, :-1]), (past[0][:, :-1], past[1][:, :-1])
    frames = torch.rand(6, 3, 12, 20) if with_frames else None
    with torch.inference_mode():
        ours = network(*rows, *before, frames)
        ids, times, outputs = logits(state, rows, before, frames, heads=4)
    assert ours[0].shape == (6, 12, 13) and ours[1].shape == (6, 12, 9) and ids.std() > 0.5 and ids.std(1).mean() > 0.02
    assert torch.allclose(ours[0], ids, atol=1e-5) and torch.allclose(ours[1], times, atol=1e-5)
    assert torch.allclose(ours[2]["speed"], outputs["speed"], atol=1e-5)


def test_rows_are_those_of_the_public_tokeniser() -> None:
    """10 units, 5 bins: SOS 10, EOS 11, PAD 12; times: EOS 7, PAD 8 (specs/neuroformer.md, section 1)."""
    counts = torch.zeros(2, 5, 10, dtype=torch.uint8)
    counts[0, 1, 4], counts[0, 1, 2], counts[0, 4, 9] = 2, 1, 1
    ids, times = public_rows(tokens_of_counts(counts), 10, 5, 7)
    assert ids.tolist() == [[10, 2, 4, 4, 9, 11, 12, 12], [10, 11, *[12] * 6]]
    assert times.tolist() == [[0, 1, 1, 1, 4, 7, 8, 8], [0, 7, *[8] * 6]]
    whole, _ = public_rows(tokens_of_counts(counts), 10, 5, 5)
    assert whole.tolist() == [[10, 2, 4, 4, 9, 11], [10, 11, *[12] * 4]], "the end has its place"
    for block in (4, 3):
        with pytest.raises(InputError, match=f"4 spikes.*at most {block - 1}"):
            public_rows(tokens_of_counts(counts), 10, 5, block)


def test_sizes_are_those_of_the_tensors_and_of_what_is_said(tmp_path: Path) -> None:
    """One block of frames to themselves, two of the window to frames; two classes are no number."""
    path = tmp_path / "model.pt"
    state = random_state(True) | {"modality_projection_heads.behavior.kind.weight": torch.ones(2, 32)}
    state["modality_projection_heads.behavior.kind.bias"] = torch.ones(2)
    torch.save({name: each for name, each in state.items() if "frame_state_blocks.1" not in name}, path)
    network = load_published(path, stride=(1, 2, 3))
    assert not network.training and network.sizes.heads == 8
    assert (network.sizes.frame_blocks, network.sizes.stimulus) == (1, 2)
    assert network.sizes.regressed == ("speed",) and network.sizes.classified == (("kind", 2),)
    assert network.conv.stride == (1, 2, 3) and load_published(path).conv.stride == (3, 4, 5)


def test_what_has_no_place_is_named(tmp_path: Path) -> None:
    state = random_state(False)
    torch.save(state | {"modality_embeddings.behavior.speed.mlp.ln.weight": torch.ones(1)}, tmp_path / "more.pt")
    with pytest.raises(InputError, match=r"behavior\.speed\.mlp\.ln"):
        load_published(tmp_path / "more.pt", heads=4)
    torch.save(state | {"feature_encoder.mask_token": torch.ones(1)}, tmp_path / "more.pt")
    with pytest.raises(InputError, match="mask_token"):
        load_published(tmp_path / "more.pt", heads=4)
    for name in ("tok_emb.weight", "pos_emb", "pos_emb_prev", "head_id.weight", "head_dt.weight"):
        torch.save({each: value for each, value in state.items() if each != name}, tmp_path / "less.pt")
        with pytest.raises(InputError, match=f"no {name}"):
            load_published(tmp_path / "less.pt", heads=4)
    for name in ("pos_emb", "feature_encoder.neural_state_blocks.0.attn.key.weight"):
        torch.save(random_state(False) | {name: torch.ones(3)}, tmp_path / "flat.pt")
        with pytest.raises(InputError, match="the tensors of a Neuroformer"):
            load_published(tmp_path / "flat.pt", heads=4)
    torch.save(random_state(False), tmp_path / "model.pt")
    for heads in (5, 0):
        with pytest.raises(InputError, match=f"heads: found {heads}; accepted: a divisor of the width, 32"):
            load_published(tmp_path / "model.pt", heads=heads)
    (tmp_path / "no.pt").write_text("no")
    with pytest.raises(InputError, match="saved by torch"):
        load_published(tmp_path / "no.pt")
