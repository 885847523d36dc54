"""Weights trained by the public NDT code, in this package's network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.network import SPARE_COUNTS
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.models.published import read_state_dict
from pipeline_lib.models.torch_model import Layout

ENCODER = "transformer_encoder"
LAYER_NAMES = {
    "self_attn.in_proj_weight": "attention.qkv.weight",
    "self_attn.in_proj_bias": "attention.qkv.bias",
    "self_attn.out_proj.weight": "attention.out.weight",
    "self_attn.out_proj.bias": "attention.out.bias",
}
POSITIONS = ("pos_encoder.pos_embedding.weight", "pos_encoder.pe")


def load_published(path: Path | str, config: Config, session: str = "published", bin_size: float = 20.0) -> NDT:
    """The model that a state dict of the public code holds.

    Sizes (layers, embedding, hidden units, kinds of position, of norm and of read-out) are read off the tensors. What
    they do not tell comes from `config`: heads, pre- or post-norm, activation, context, log-rates. Bins and units are
    those of the training; units keep their order there (held-in ones first).

    Parameters
    ----------
    path : a file that torch saved: the state dict, or a checkpoint that holds it as `state_dict`. Only tensors are
        read; a file that needs more unpickled (the public code puts its configuration in) must be saved anew without.
    session : name for the session.
    bin_size : ms, by which the context in seconds becomes bins.

    Raises
    ------
    InputError : not such a file, or a tensor without a place in the network.

    Examples
    --------
    >>> model = load_published("ndt.pth", Config(heads=2))  # doctest: +SKIP
    """
    given = read_state_dict(path)
    position = next((given[name] for name in POSITIONS if name in given), None)
    readout = sorted(name for name in given if name.startswith("decoder.") and name.endswith(".weight"))
    if position is None or not readout:
        raise InputError(path, "state_dict", f"no {'decoder' if position is not None else 'pos_encoder'}", "an NDT")
    table = given.get("embedder.0.weight")
    units = len(given[readout[-1]])
    config = replace(
        config,
        embedding=0 if table is None else table.shape[1],
        read_in=None,
        layers=1 + max(int(name.split(".")[2]) for name in given if name.startswith(f"{ENCODER}.layers.")),
        hidden=len(given[f"{ENCODER}.layers.0.linear1.weight"]),
        position="learned" if POSITIONS[0] in given else "sinusoid",
        final_norm="scale" if f"{ENCODER}.norm.scale" in given else "layer",
        decoder_hidden=len(given[readout[0]]) if len(readout) > 1 else 0,
        compat=True,
    )
    model = NDT(config, seed=0)
    model.layout = Layout(
        bin_size=bin_size,
        bins=len(position),
        history=0,
        forward=0,
        most=0 if table is None else len(table) - 2 - SPARE_COUNTS,
        units={session: units},
        heldin={session: list(range(units))},
        population={session: [""] * units},
    )
    model.network = model.build(model.layout)
    weights = {_name(name, session, readout[-1].split(".")[1]): value for name, value in given.items()}
    weights["position"] = position.reshape(len(position), -1)
    try:
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(path, "state_dict", str(error).replace("\n", " "), "the tensors of an NDT") from error
    model.network.eval()
    return model


def _name(name: str, session: str, last: str) -> str:
    """Where a tensor of the public code has its place here; `last`: number of the read-out's last layer."""
    if name in POSITIONS:
        return "position"
    head = f"sessions.{session}."
    part, _, rest = name.partition(".")
    if part == "embedder":
        return f"{head}table.weight"
    if part == "decoder":
        number, _, kind = rest.partition(".")
        return f"{head}last.{kind}" if number == last else f"{head}hidden.0.{kind}"
    if part == ENCODER and rest.startswith("layers."):
        _, number, inner = rest.split(".", 2)
        return f"encoder.layers.{number}.{LAYER_NAMES.get(inner, inner)}"
    return f"encoder.{rest}" if part == ENCODER else name
