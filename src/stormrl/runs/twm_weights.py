"""The authors' weights of TWM: for each tensor of their agent its name here.

Their state dict is that of an `Agent` (github.com/jrobine/twm): world model under `wm.`, actor and
critic under `ac.`. Every tensor has the same shape here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from stormrl.agents.advantage import AdvantageActorCritic
from stormrl.errors import UserError
from stormrl.worlds.twm import TwmWorld

OBSERVATION, DYNAMICS = "wm.obs_model.", "wm.dyn_model.prediction_net."
TABLES = (f"{DYNAMICS}transformer.pos_enc.encodings",)
"""Tensors of theirs that are no weights: sines and cosines of positions."""


class Names(NamedTuple):
    """Their names -> ours."""

    world: dict[str, str]
    agent: dict[str, str]


def twm_names(world: TwmWorld, agent: AdvantageActorCritic) -> Names:
    """The names of every weight of an agent of this size."""
    c, head = world.config, agent.config.head
    actor = _perceptron("ac.actor_model", "actor", head.layers, step=2)
    critic = _perceptron("ac.critic_model", "critic", head.layers, step=2)
    pairs = [*_autoencoder(c.image.head.layers), *_sequence(c.sequence.layers)]
    heads = {"z": ("latent_head", c.latent_head), "r": ("reward_head", c.head)}
    for theirs, (ours, size) in {**heads, "g": ("continues_head", c.head)}.items():
        pairs += _perceptron(f"{DYNAMICS}out_heads.{theirs}", ours, size.layers, step=3)
    return Names(dict(pairs), dict([*actor, *critic]))


def load_twm(world: TwmWorld, agent: AdvantageActorCritic, released: Mapping[str, Tensor]) -> None:
    """Put weights of theirs into world model and agent.

    Raises `UserError`, and changes nothing, if a tensor is missing, unknown or of another shape.
    """
    names = twm_names(world, agent)
    parts = {"world": (world, names.world), "agent": (agent, names.agent)}
    known = {*names.world, *names.agent, *TABLES}
    for name in sorted(released.keys() - known):
        raise UserError("weights", f"{name!r} is unknown; give the state dict of an agent of TWM")
    found = {part: _renamed(released, table) for part, (_, table) in parts.items()}
    for part, (module, _) in parts.items():
        _check_shapes(found[part], module.state_dict())
    for part, (module, _) in parts.items():
        module.load_state_dict(found[part], strict=False)


def _autoencoder(layers: int) -> Iterator[tuple[str, str]]:
    for stage in range(4):
        place = 2 * stage
        yield from _both(f"{OBSERVATION}encoder.0.conv{stage + 1}", f"encoder.stages.{place}")
        deconvolution = f"{OBSERVATION}decoder.2.conv_transpose{stage + 1}"
        yield from _both(deconvolution, f"decoder.stages.{place}")
    yield from _perceptron(f"{OBSERVATION}encoder.2", "encoder.mlp", layers, step=2)
    yield from _both(f"{OBSERVATION}decoder.0.linear1", "decoder.stem.0")


def _sequence(layers: int) -> Iterator[tuple[str, str]]:
    yield from _both(f"{DYNAMICS}embeds.z.linear1", "sequence.latent.0")
    yield from _both(f"{DYNAMICS}embeds.r.linear1", "sequence.reward.0")
    yield f"{DYNAMICS}embeds.a.weight", "sequence.action.weight"
    yield f"{DYNAMICS}transformer.u_bias", "sequence.content_bias"
    yield f"{DYNAMICS}transformer.v_bias", "sequence.position_bias"
    for layer in range(layers):
        theirs, ours = f"{DYNAMICS}transformer.layers.{layer}", f"sequence.blocks.{layer}"
        attention = {"qkv_proj": "qkv", "pos_proj": "position", "out_proj": "out"}
        for name, here in attention.items():
            yield f"{theirs}.self_attn.{name}.weight", f"{ours}.attention.{here}.weight"
        others = {"linear1": "expand", "linear2": "contract", "norm1": "norm1", "norm2": "norm2"}
        for name, here in others.items():
            yield from _both(f"{theirs}.{name}", f"{ours}.{here}")


def _perceptron(theirs: str, ours: str, layers: int, step: int) -> Iterator[tuple[str, str]]:
    """step: modules here for each hidden layer."""
    for layer in range(layers + 1):
        yield from _both(f"{theirs}.linear{layer + 1}", f"{ours}.{layer * step}")


def _both(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for tensor in ("weight", "bias"):
        yield f"{theirs}.{tensor}", f"{ours}.{tensor}"


def _renamed(released: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    for name in table:
        if name not in released:
            raise UserError("weights", f"{name!r} is missing; give those of an agent of this size")
    return {ours: released[theirs] for theirs, ours in table.items()}


def _check_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        if name not in wanted or tensor.shape != wanted[name].shape:
            problem = f"{name!r} is {list(tensor.shape)}; give those of an agent of this size"
            raise UserError("weights", problem)
