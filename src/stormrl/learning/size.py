"""What a run's networks, batches and memories take, told before they are made.

A config.json is a few bytes that somebody else may have written: it can ask for anything.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from stormrl.acting.actor import Actor
from stormrl.acting.evaluate import PARALLEL
from stormrl.agents.build import build_agent
from stormrl.config.fields import is_outside
from stormrl.config.limits import MAX_SIZE
from stormrl.config.parts import AgentConfig, leaves, to_dict
from stormrl.config.validation import LARGEST
from stormrl.errors import UserError
from stormrl.learning.parameters import count_parameters
from stormrl.spaces import Spaces, bytes_of
from stormrl.types import named_leaves
from stormrl.worlds.build import build_world

ONE_BY_ONE = 1_000_000
"""What is made or done one by one, a layer or an update at each step, takes as long as so many
numbers."""
LISTED = 100
"""The same of what is only listed one by one."""
RATIOS = ("world_model_ratio", "agent_ratio")
UNCOUNTED = ("replay.", "actor_critic.entropy_")
"""Settings that take nothing by themselves, or what is checked elsewhere."""
DREAMT = 1_000
"""Numbers of a dreamt step, about."""


def check_size(config: AgentConfig, spaces: Spaces, most: int = MAX_SIZE) -> None:
    """Raises `UserError` if a part of it would hold more than `most` numbers.

    Networks of one's own are not looked into: who has allowed their code trusts them.
    """
    for field, numbers in _demands(config, spaces):
        if numbers > most:
            demand = f"asks for {numbers:,} numbers, and {most:,} are allowed"
            takers = "eval, dream, play and train --resume"
            remedy = f"if you trust the run: {takers} take --max-size {numbers}"
            raise UserError(field, f"{demand}; {remedy}")


def _demands(config: AgentConfig, spaces: Spaces) -> Iterator[tuple[str, int]]:
    """Fields and what they ask for, in the order in which it can be found out at no cost."""
    yield from _settings(config)
    yield from _sequences(config, spaces)
    if not is_outside(config.world_model.kind) and not is_outside(config.actor_critic.kind):
        yield from _networks(config, spaces)


def _settings(config: AgentConfig) -> Iterator[tuple[str, int]]:
    for name, value in leaves(to_dict(config)):
        if (type(value) is int or name in RATIOS) and not name.startswith(UNCOUNTED):
            yield name, int(min(value * _weight(name), LARGEST))


def _weight(name: str) -> int:
    if name in RATIOS or name.endswith(".layers"):
        return ONE_BY_ONE
    return LISTED if ".pretraining" in name else 1


def _sequences(config: AgentConfig, spaces: Spaces) -> Iterator[tuple[str, int]]:
    """Windows, dreams, and what acting looks back on; without the networks that read them."""
    world, dreams, shown = config.world_model, config.imagination, config.demonstration
    windows, contexts = world.batch_size, dreams.batch_size
    if shown.path:
        windows += shown.world_model_windows
        contexts += shown.imagination_windows
    frames, dream = windows * world.window, dreams.context + dreams.horizon
    starts = contexts if dreams.dreams_from == "contexts" else frames
    pixels = bytes_of(spaces.observation) // 4  # As they lie in replay.
    yield "world_model.batch_size", frames * pixels
    yield "world_model.batch_length", windows * world.attention_scores(world.window)
    yield "imagination.batch_size", contexts * dreams.context * pixels
    yield "imagination.horizon", starts * dream * DREAMT
    yield "acting.context", PARALLEL * world.attention_scores(config.acting.context + 1)


def _networks(config: AgentConfig, spaces: Spaces) -> Iterator[tuple[str, int]]:
    """Their parameters, and what acting takes along; made where nothing takes memory."""
    try:
        with torch.device("meta"):
            world = build_world(config, spaces, torch.device("meta"))
            agent = build_agent(config, world)
            carry = Actor(world, agent).begin(PARALLEL)
    except RuntimeError:  # More than can be counted.
        yield "world_model", LARGEST
        return
    yield "world_model", count_parameters(world)["total"]
    yield "actor_critic", count_parameters(agent)["total"]
    yield "acting.context", sum(leaf.nbytes // 4 for leaf in named_leaves(carry).values())
