"""Weights trained by the public Neuroformer code, in the network of `public`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.neuroformer.public import PublicNeuroformer, PublicSizes
from pipeline_lib.models.published import read_state_dict

BLOCKS = {
    "feature_encoder.neural_state_blocks": "state",
    "feature_encoder.frame_state_blocks": "frame_state",
    "neural_visual_transformer.neural_state_history_blocks": "state_past",
    "neural_visual_transformer.neural_state_stimulus_blocks": "state_frames",
    "neural_visual_transformer.neural_state_blocks": "state_last",
}
INNER = {"attn.query": "attention.query", "attn.key": "attention.key", "attn.value": "attention.value"}
INNER |= {"attn.proj": "attention.out", "ln1": "ln1", "ln2": "ln2", "ln_f": "ln_f"}
PLAIN = {"tok_emb.weight": "unit.weight", "pos_emb": "position", "pos_emb_prev": "past_position"}
PLAIN |= {"head_id.weight": "id_head.weight", "head_dt.weight": "time_head.weight"}
UNUSED = (r".*\.mask", r"frame_3d_emb\.inv_freq", r"neural_visual_transformer\.ln_f\..*", r"clip\..*")
"""Constants, a norm that is never applied, and the projection of the contrastive loss."""
READ_OUT = re.compile(r"modality_projection_heads\.\w+\.(\w+)\.(weight|bias)")


def load_published(
    path: Path | str,
    heads: int = 8,
    stride: tuple[int, int, int] | None = None,
) -> PublicNeuroformer:
    """The network that a state dict of the public code holds; all sizes but two are read off its tensors.

    Parameters
    ----------
    path : a file that torch saved: the state dict, or a dictionary that holds it as `state_dict`. Nothing but tensors
        is read.
    heads : of attention.
    stride : of the convolution over frames; None: its kernel.

    Raises
    ------
    InputError : not such a file, or a tensor without a place: behaviours as inputs (whose value the public code loses,
        specs/neuroformer.md section 4) and the sinusoids of `wave_emb` have none.

    Examples
    --------
    >>> network = load_published("neuroformer.pth", heads=8)  # doctest: +SKIP
    """
    given = read_state_dict(path)
    for name in ("tok_emb.weight", "pos_emb", "pos_emb_prev", "head_id.weight", "head_dt.weight"):
        if name not in given:
            raise InputError(path, "state_dict", f"no {name}", "the tensors of a Neuroformer")
    try:
        weights = _joined(dict(_renamed(given, path)))
        network = PublicNeuroformer(_sizes(given, weights, heads, stride))
        network.load_state_dict(weights)
    except (RuntimeError, IndexError) as error:
        raise InputError(path, "state_dict", str(error).replace("\n", " "), "the tensors of a Neuroformer") from error
    return network.eval()


def _sizes(
    given: Mapping[str, Tensor], weights: Mapping[str, Tensor], heads: int, stride: tuple[int, int, int] | None
) -> PublicSizes:
    """Sizes of the network of a state dict, `given` as it is and with `weights` as they are called here."""
    width = given["tok_emb.weight"].shape[1]
    if heads < 1 or width % heads:
        raise InputError("load_published", "heads", heads, f"a divisor of the width, {width}")
    counts = {own: 1 + max((int(name.split(".")[1]) for name in weights if name.startswith(f"{own}.")), default=-1)
              for own in BLOCKS.values()}  # fmt: skip
    outputs = {name.split(".")[1]: len(value) for name, value in weights.items() if name.startswith("read_out.")}
    kernel = weights["conv.weight"].shape[2:] if "conv.weight" in weights else None
    return PublicSizes(
        units=len(given["tok_emb.weight"]) - 3,
        bins=len(given["head_dt.weight"]) - 4,
        width=width,
        heads=heads,
        block=given["pos_emb"].shape[1],
        past_block=given["pos_emb_prev"].shape[1],
        state=counts["state"],
        past=counts["state_past"],
        stimulus=counts["state_frames"],
        frame_blocks=counts["frame_state"],
        kernel=None if kernel is None else (kernel[0], kernel[1], kernel[2]),
        stride=stride,
        regressed=tuple(name for name, size in outputs.items() if size == 1),
        classified=tuple((name, size) for name, size in outputs.items() if size > 1),
    )


def _renamed(given: Mapping[str, Tensor], path: Path | str) -> list[tuple[str, Tensor]]:
    renamed = []
    for name, value in given.items():
        if any(re.fullmatch(pattern, name) for pattern in UNUSED):
            continue
        own = _name(name)
        if own is None:
            raise InputError(path, "state_dict", name, "spikes, frames and what is read out; no behaviour as input")
        renamed.append((own, value[0] if name in ("pos_emb", "pos_emb_prev") else value))
    return renamed


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With keys and values, two maps there, as the one map they are here."""
    for key in [name for name in weights if ".attention.key." in name]:
        value = key.replace(".key.", ".value.")
        if value in weights:
            weights[key.replace(".key.", ".key_value.")] = torch.cat([weights.pop(key), weights.pop(value)])
    return weights


def _name(name: str) -> str | None:
    """Where a tensor of the public code has its place here."""
    if name in PLAIN:
        return PLAIN[name]
    if match := READ_OUT.fullmatch(name):
        return f"read_out.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"temp_emb(_prev)?\.temp_emb\.(\d+)\.(weight|bias)", name):
        return f"{'past_time' if match[1] else 'time'}.{match[2]}.{match[3]}"
    if match := re.fullmatch(r"video_encoder\.conv_block\.(\d+)\.(weight|bias)", name):
        return f"{'conv' if match[1] == '0' else 'conv_norm'}.{match[2]}"
    for theirs, own in BLOCKS.items():
        if match := re.fullmatch(rf"{theirs}\.(\d+)\.(.+)\.(weight|bias)", name):
            inner = INNER.get(match[2])
            if inner is None and match[2].startswith("mlp."):
                inner = "hidden" if match[2] == "mlp.0" else "out"
            return None if inner is None else f"{own}.{match[1]}.{inner}.{match[3]}"
    return None
