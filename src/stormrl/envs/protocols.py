"""Named protocols: how a game is presented to the agent and how a score is counted.

Scores under different protocols cannot be compared (sticky actions alone cost BBF a sixth of its
inter-quartile mean), so a protocol has a name and the name stands beside every score.
"""

from dataclasses import dataclass
from typing import Literal

from stormrl.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """The rules of a game's training and evaluation."""

    name: str
    """What the protocol is called on the command line and beside every score."""

    sticky_actions: float
    """Probability, at each emulator frame, that the previous action is repeated instead of the
    agent's (Machado et al. 2018). Atari only."""

    noop_max: int
    """An episode starts after 1 to this many idle emulator frames; 0 turns this off. Atari only."""

    life_loss: Literal["termination", "ignored"]
    """How a lost life enters replay: as a termination (the game itself is not reset), or not at
    all."""

    evaluation_episodes: int
    """Episodes whose mean return is the score."""

    greedy_evaluation: bool = False
    """Evaluate with the most probable action instead of a sampled one."""

    frame_skip: int = 4
    """Emulator frames per agent step; the picture is the maximum of the last two. Atari only."""

    max_frames: int = 108_000
    """An episode is truncated after this many emulator frames (30 minutes of play). Atari only."""

    fixed_seed_at_reset: bool = False
    """Seed every reset like the first one, so that all training episodes begin alike and meet the
    same stream of sticky actions. A reset that is given a seed of its own keeps that seed, so
    evaluation, which seeds each episode, is not touched."""


DEFAULT_PROTOCOL = "atari100k"

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # What STORM's published scores were trained under. Its evaluation miscounted (rewards
        # moved between episodes, short episodes were favoured): those faults are not part of it.
        Protocol(
            name="official",
            sticky_actions=0.25,
            noop_max=0,
            life_loss="termination",
            evaluation_episodes=20,
            fixed_seed_at_reset=True,
        ),
        # What most of the Atari 100k literature reports.
        Protocol(
            name="atari100k",
            sticky_actions=0.0,
            noop_max=30,
            life_loss="termination",
            evaluation_episodes=100,
        ),
        # Machado et al. 2018, arXiv 1709.06009, with the minimal action set of the other two.
        Protocol(
            name="machado",
            sticky_actions=0.25,
            noop_max=0,
            life_loss="ignored",
            evaluation_episodes=100,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises `UserError` if there is none."""
    if name not in PROTOCOLS:
        raise UserError("protocol", f"{name!r} is unknown; give one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
