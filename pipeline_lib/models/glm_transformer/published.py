"""Weights trained by the public GLM-Transformer code, in this package's network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm_transformer.model import GLMTransformerModel
from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.models.ndt.published import LAYER_NAMES
from pipeline_lib.models.published import read_state_dict
from pipeline_lib.models.torch_model import Layout

ENCODER = "transformer_encoder.layers."
Tensors = dict[str, Tensor]


def load_published(
    path: Path | str,
    config: Config | None = None,
    bins: int = 250,
    history: int = 50,
    bin_size: float = 2.0,
) -> GLMTransformerModel:
    """The model that a state dict of the public code holds; it computes as that code does (`compat`).

    Sizes (units, populations, layers, factors, splines, rank ...) are read off the tensors; what they do not tell
    comes from `config`: where the filters' functions peak, bins in a token, which populations are coupled.

    Parameters
    ----------
    path : a file that torch saved: a dictionary of tensors. Nothing else is read.
    config : default: the settings of the public tutorial.
    bins, history : bins of a window without its history, and of the history.
    bin_size : ms.

    Returns
    -------
    The model, its sessions those of the file, its populations "area 00", "area 01" ... in the order of the file; units
    stand population by population.

    Raises
    ------
    InputError : not such a file, or tensors that are missing or do not fit.

    Examples
    --------
    >>> model = load_published("glm_transformer.pth")  # doctest: +SKIP
    """
    given = read_state_dict(path)
    try:
        units = area_sizes(given)
        config = replace(sizes(given, config or Config(history_basis=2)), compat=True)
        population = {
            session: [f"area {area:02d}" for area, size in enumerate(counts) for _ in range(size)]
            for session, counts in units.items()
        }
        model = GLMTransformerModel(config, seed=0)
        totals = {session: sum(counts) for session, counts in units.items()}
        everyone = {session: list(range(total)) for session, total in totals.items()}
        model.layout = Layout(bin_size, bins + history, history, 0, 0, totals, everyone, population)
        model.network = model.build(model.layout)
        own = model.network.state_dict()
        fixed = {name: value for name, value in own.items() if name.endswith((".level", ".coupled"))}
        model.network.load_state_dict(translated(given, units) | fixed)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        problem = str(error).replace("\n", " ")
        raise InputError(path, "state_dict", problem, "the tensors of a GLM-Transformer") from error
    model.network.eval()
    return model


def area_sizes(given: Tensors) -> dict[str, list[int]]:
    """Units of each population of each session of a published state dict.

    Raises
    ------
    KeyError : it has no readout of a population.
    """
    found: dict[str, dict[int, int]] = {}
    for name, value in given.items():
        match = re.fullmatch(r"sti_readout_matrix_dict\.(.+)\.(\d+)\.bias", name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = len(value)
    if not found:
        raise KeyError("no sti_readout_matrix_dict")
    return {session: [areas[number] for number in sorted(areas)] for session, areas in found.items()}


def sizes(given: Tensors, config: Config) -> Config:
    """`config` with the sizes of a published state dict."""
    areas, factors, splines = given["sti_inhomo"].shape
    latents = len(given["to_latent.weight"]) // 2
    first = given.get("sti_decoder.naive_sti_decoder.0.0.weight")
    hidden = 0 if first is None or "sti_decoder.naive_sti_decoder.0.2.weight" not in given else len(first) // latents
    shape, history = (_first_of(given, f"{kind}_dict.") for kind in ("cp_beta_coupling", "beta_self_history"))
    area_specific = first is not None
    return replace(
        config,
        area_specific=area_specific,
        factors=factors,
        splines=splines - 1,
        latents=latents if area_specific else latents // areas,
        decoder=hidden,
        width=given["to_latent.weight"].shape[1],
        hidden=len(given[f"{ENCODER}0.linear1.weight"]),
        layers=1 + max(int(name.split(".")[2]) for name in given if name.startswith(ENCODER)),
        coupling_basis=shape.shape[0],
        rank=shape.shape[1],
        history_basis=len(history),
    )


def _first_of(given: Tensors, group: str) -> Tensor:
    for name, value in given.items():
        if name.startswith(group):
            return value
    raise KeyError(f"no {group}")


def translated(given: Tensors, units: dict[str, list[int]]) -> Tensors:
    """A published state dict under this package's names; `units` as `area_sizes` gives them."""
    made = {"response": given["sti_inhomo"], "posterior.position": given["positional_encoding.pe"][:, 0]}
    for name, value in given.items():
        if name.startswith(ENCODER):
            number, inner = name.removeprefix(ENCODER).split(".", 1)
            made[f"posterior.encoder.layers.{number}.{LAYER_NAMES.get(inner, inner)}"] = value
        elif name.startswith("to_latent."):
            made[f"posterior.{name}"] = value
    made |= _decoders(given)
    for session, counts in units.items():
        made |= {f"sessions.{session}.{name}": value for name, value in _session(given, session, counts).items()}
    return made


def _decoders(given: Tensors) -> Tensors:
    """One decoder a population, or one for all; of two layers or of one."""
    layers: dict[tuple[int, int], Tensors] = {}
    for name, value in given.items():
        match = re.fullmatch(r"sti_decoder\.(?:naive_sti_decoder\.(\d+)\.)?(?:(\d+)\.)?(weight|bias)", name)
        if match:
            layers.setdefault((int(match[1] or 0), int(match[2] or 0)), {})[match[3]] = value
    last = max(layer for _, layer in layers)
    return {
        f"decoders.{area}.{'last' if layer == last else 'first'}.{kind}": value
        for (area, layer), named in layers.items()
        for kind, value in named.items()
    }


def _session(given: Tensors, session: str, counts: list[int]) -> Tensors:
    areas = range(len(counts))
    key = f"token_converter_dict.{session}"
    streams = [f"{key}_{area}" for area in areas] if f"{key}_0.weight" in given else [key]

    def pairs(kind: str) -> list[list[Tensor]]:
        return [[given[f"cp_{kind}_dict.{session}.{i}.{j}"] for j in areas] for i in areas]

    send, receive = pairs("weight_sending"), pairs("weight_receiving")
    readout = f"sti_readout_matrix_dict.{session}"
    return {
        "embed": torch.cat([given[f"{stream}.weight"].T for stream in streams]),
        "embed_bias": torch.stack([given[f"{stream}.bias"] for stream in streams]),
        "readout": torch.cat([given[f"{readout}.{area}.weight"] for area in areas]),
        "bias": torch.cat([given[f"{readout}.{area}.bias"] for area in areas]),
        "send": torch.cat([torch.stack(row, 1) for row in send]),
        "receive": torch.cat([torch.stack([row[j] for row in receive], 1) for j in areas]),
        "shape": torch.stack([torch.stack(row) for row in pairs("beta_coupling")]),
        "history": given[f"beta_self_history_dict.{session}"],
    }
