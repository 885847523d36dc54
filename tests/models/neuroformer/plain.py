"""The public Neuroformer, written out plainly from specs/neuroformer.md over a state dict of its names."""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv3d, gelu, layer_norm

State = dict[str, Tensor]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    y = torch.einsum("...i,oi->...o", x, state[f"{name}.weight"])
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def block(state: State, name: str, x: Tensor, source: Tensor | None, heads: int, causal: bool) -> Tensor:
    source = x if source is None else source
    query = linear(state, f"{name}.attn.query", norm(state, f"{name}.ln1", x))
    key, value = linear(state, f"{name}.attn.key", source), linear(state, f"{name}.attn.value", source)
    size = x.shape[-1] // heads
    mixed = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("mqd,mkd->mqk", query[..., part], key[..., part]) / math.sqrt(size)
        if causal:
            for row in range(scores.shape[1]):
                scores[:, row, row + 1 :] = -math.inf
        mixed[..., part] = torch.einsum("mqk,mkd->mqd", scores.softmax(-1), value[..., part])
    x = x + linear(state, f"{name}.attn.proj", mixed)
    x = x + linear(state, f"{name}.mlp.2", gelu(linear(state, f"{name}.mlp.0", norm(state, f"{name}.ln2", x))))
    return norm(state, f"{name}.ln_f", x)


def blocks(state: State, name: str, x: Tensor, source: Tensor | None, heads: int, causal: bool = False) -> Tensor:
    number = 0
    while f"{name}.{number}.ln1.weight" in state:
        x = block(state, f"{name}.{number}", x, source, heads, causal)
        number += 1
    return x


def time(state: State, name: str, index: Tensor) -> Tensor:
    hidden = gelu(linear(state, f"{name}.temp_emb.0", index[..., None].float()))
    return linear(state, f"{name}.temp_emb.2", hidden)


def logits(
    state: State, rows: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor], frames: Tensor | None, heads: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits of ids and times, and what is read out."""
    table = state["tok_emb.weight"]
    x = table[rows[0]] + time(state, "temp_emb", rows[1]) + state["pos_emb"][:, : rows[0].shape[1]]
    before = table[past[0]] + time(state, "temp_emb_prev", past[1]) + state["pos_emb_prev"][:, : past[0].shape[1]]
    x = blocks(state, "feature_encoder.neural_state_blocks", x, None, heads, causal=True)
    x = blocks(state, "neural_visual_transformer.neural_state_history_blocks", x, before, heads)
    if frames is not None:
        weight, bias = state["video_encoder.conv_block.0.weight"], state["video_encoder.conv_block.0.bias"]
        seen = conv3d(frames[:, None], weight, bias, stride=weight.shape[2:])
        seen = seen.flatten(2).transpose(1, 2)
        seen = norm(state, "video_encoder.conv_block.1", seen).clamp(min=0)
        start = table[len(table) - 3].expand(len(seen), 1, -1)
        seen = torch.cat([start, seen], 1)
        seen = blocks(state, "feature_encoder.frame_state_blocks", seen, None, heads)
        x = blocks(state, "neural_visual_transformer.neural_state_stimulus_blocks", x, seen, heads)
    x = blocks(state, "neural_visual_transformer.neural_state_blocks", x, None, heads, causal=True)
    heads_out = {
        name.split(".")[2]: linear(state, name.removesuffix(".weight"), x.mean(1))
        for name in state
        if name.startswith("modality_projection_heads") and name.endswith("weight")
    }
    return linear(state, "head_id", x), linear(state, "head_dt", x), heads_out


def random_state(
    frames: bool, units: int = 10, width: int = 32, block: int = 12, past: int = 24, bins: int = 5
) -> State:
    """A state dict in the public code's layout (specs/state_dicts.md), every weight random."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_emb": (1, block, width),
        "pos_emb_prev": (1, past, width),
        "tok_emb.weight": (units + 3, width),
        "head_id.weight": (units + 3, width),
        "head_dt.weight": (bins + 4, width),
        "clip.proj.weight": (width, width),
        "neural_visual_transformer.ln_f.weight": (width,),
        "neural_visual_transformer.ln_f.bias": (width,),
        "feature_encoder.mask": (1, 1, block, block),
        "modality_projection_heads.behavior.speed.weight": (1, width),
        "modality_projection_heads.behavior.speed.bias": (1,),
    }
    for name in ("temp_emb", "temp_emb_prev"):
        shapes |= {f"{name}.temp_emb.0.weight": (width // 2, 1), f"{name}.temp_emb.0.bias": (width // 2,)}
        shapes |= {f"{name}.temp_emb.2.weight": (width, width // 2), f"{name}.temp_emb.2.bias": (width,)}
    groups = ["feature_encoder.neural_state_blocks", "neural_visual_transformer.neural_state_blocks"]
    groups += ["neural_visual_transformer.neural_state_history_blocks"]
    if frames:
        groups += ["feature_encoder.frame_state_blocks", "neural_visual_transformer.neural_state_stimulus_blocks"]
        shapes |= {"video_encoder.conv_block.0.weight": (width, 1, 3, 4, 5), "frame_3d_emb.inv_freq": (6,)}
        shapes |= {f"video_encoder.conv_block.{name}": (width,) for name in ("0.bias", "1.weight", "1.bias")}
    for group in groups:
        for number in range(2):
            name = f"{group}.{number}"
            shapes |= {
                f"{name}.{each}.{kind}": (width,) for each in ("ln1", "ln2", "ln_f") for kind in ("weight", "bias")
            }
            for each in ("query", "key", "value", "proj"):
                shapes |= {f"{name}.attn.{each}.weight": (width, width), f"{name}.attn.{each}.bias": (width,)}
            shapes |= {f"{name}.mlp.0.weight": (4 * width, width), f"{name}.mlp.0.bias": (4 * width,)}
            shapes |= {f"{name}.mlp.2.weight": (width, 4 * width), f"{name}.mlp.2.bias": (width,)}
    state = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    norms = [name for name in state if ".ln" in name and name.endswith("weight")]
    return state | {name: 1 + state[name] for name in norms}
