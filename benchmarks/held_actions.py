"""What a game gives to play that sees nothing: random play, and the best held action.

    python benchmarks/held_actions.py --out results/atari/held_actions.json

Some games reward whoever keeps one joystick position, so an agent that beats random play may still
have learned no more than that. Every action is therefore held, always and in 80 % of the steps (the
others are random), for a few episodes. The best few of these policies then play 20 other episodes,
under the full protocol, and the best of them is the best held action. It is chosen among the few
by the very episodes that measure it, which favours it, never the agent it is compared with.

Prints a table and writes every return. --games plays some games, and keeps what the file has of
the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scripts import run
from stormrl.acting.evaluate import RandomPlayer, Score, evaluate, random_scores
from stormrl.commands.output import messages, number, results, say, table
from stormrl.disk.files import read_json
from stormrl.envs import Protocol, action_meanings, find_protocol, make_env
from stormrl.errors import UserError
from stormrl.machine.provenance import provenance
from stormrl.scores.published import game_of
from stormrl.scores.summary import mean_and_stderr
from stormrl.seeds import HELD_SEED, RANDOM_SEED, SCAN_SEED
from stormrl.types import Carry

GAMES = ("RoadRunner", "UpNDown", "CrazyClimber", "KungFuMaster", "Boxing")
SHARES = (0.8, 1.0)
# Apart from those of trainings, of their evaluations, and from each other.
HOW = (
    "The candidates are the policies with the highest means over the episodes of the scan, which "
    "are cut at max_steps; choosing them and measuring them used different episodes. The best held "
    "action is the candidate with the highest mean over the fresh episodes, a choice among few "
    "that favours it."
)


class Held(NamedTuple):
    """A policy that sees nothing."""

    action: int
    share: float
    """Of the steps in which the action is held; in the others one is drawn uniformly."""


class HeldPlayer(RandomPlayer):
    """Plays a held action."""

    def __init__(self, held: Held, actions: int) -> None:
        super().__init__(actions)
        self.held = held

    def act(
        self, obs: Tensor, carry: Carry, is_first: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Carry]:
        drawn, carry = super().act(obs, carry, is_first, greedy)
        holds = torch.rand(len(obs)) < self.held.share
        return torch.where(holds, self.held.action, drawn), carry


def main() -> None:
    options = _options()
    protocol = find_protocol(options.protocol)
    record = opened(options.out, settings(protocol, options))
    for game in options.games:
        env_id = game if "/" in game else f"ALE/{game}-v5"
        with messages().status(f"playing {game}"):
            record["games"][game_of(env_id)] = measured(env_id, protocol, options) | provenance()
        # After every game: what has been played is kept, whatever comes next.
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    show(record)


def settings(protocol: Protocol, options: argparse.Namespace) -> dict[str, Any]:
    """What all games of a file have in common."""
    counts = ("random_episodes", "scan_episodes", "max_steps", "candidates", "episodes")
    return {
        "protocol": protocol.name,
        "how": HOW,
        **{name: getattr(options, name) for name in counts},
        "seeds": {"random": RANDOM_SEED, "scan": SCAN_SEED, "held": HELD_SEED},
    }


def opened(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The record in a file, or a new one.

    Raises `UserError` if the games in it were played with other settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return {**wanted, "games": {}}
    record = read_json(path)
    if {name: record.get(name) for name in wanted} != wanted:
        raise UserError("out", f"{path} holds games played with other settings; give another file")
    return record


def measured(env_id: str, protocol: Protocol, options: argparse.Namespace) -> dict[str, Any]:
    """Random play and the best held action of one game."""
    words = actions_of(env_id, protocol)
    random = random_scores(env_id, protocol, options.random_episodes, RANDOM_SEED)
    tried = scanned(env_id, protocol, len(words), options)
    best_few = leaders({held: mean(scores) for held, scores in tried.items()}, options.candidates)
    fresh = {
        held: played(held, len(words), env_id, protocol, options.episodes, HELD_SEED)
        for held in best_few
    }
    best = leaders({held: mean(scores) for held, scores in fresh.items()}, 1)[0]
    return {
        "env": env_id,
        "actions": words,
        "random": summary(random),
        "held": policy(best, words) | summary(fresh[best]),
        "candidates": [policy(held, words) | summary(scores) for held, scores in fresh.items()],
        "scan": [policy(held, words) | summary(scores) for held, scores in tried.items()],
    }


def scanned(
    env_id: str, protocol: Protocol, actions: int, options: argparse.Namespace
) -> dict[Held, list[Score]]:
    """A few episodes, each cut at `max_steps`, of every action and share."""
    cut = replace(protocol, max_frames=options.max_steps * protocol.frame_skip)
    return {
        held: played(held, actions, env_id, cut, options.scan_episodes, SCAN_SEED)
        for held in policies(actions)
    }


def policies(actions: int) -> list[Held]:
    """All that are scanned."""
    return [Held(action, share) for share in SHARES for action in range(actions)]


def played(
    held: Held, actions: int, env_id: str, protocol: Protocol, episodes: int, seed: int
) -> list[Score]:
    """Whole episodes of one policy."""
    return evaluate(HeldPlayer(held, actions), env_id, protocol, episodes, seed)


def leaders(means: Mapping[Held, float], count: int) -> list[Held]:
    """The policies with the highest means, best first; of equals, the one named first."""
    return sorted(means, key=means.__getitem__, reverse=True)[:count]


def mean(scores: Sequence[Score]) -> float:
    return statistics.fmean(score.total for score in scores)


def actions_of(env_id: str, protocol: Protocol) -> list[str]:
    """A word for each action of the game."""
    env = make_env(env_id, protocol)
    words = action_meanings(env)
    env.close()
    return words


def policy(held: Held, words: Sequence[str]) -> dict[str, Any]:
    return {"action": words[held.action], "share": held.share}


def summary(scores: Sequence[Score]) -> dict[str, Any]:
    """Mean, its standard error (None for a single episode), and what it is made of."""
    returns = [score.total for score in scores]
    average, stderr = mean_and_stderr(returns)
    return {
        "mean": average,
        "stderr": stderr if len(returns) > 1 else None,
        "returns": returns,
        "lengths": [score.length for score in scores],
    }


def policy_text(found: Mapping[str, Any]) -> str:
    """As in `UP, 80 %`."""
    return f"{found['action']}, {found['share']:.0%}".replace("%", " %")


def show(record: Mapping[str, Any]) -> None:
    """A table: each game's random play, and its best held action."""
    rows = [row(game, found) for game, found in record["games"].items()]
    columns = ("game", *map(number, ("random play", "best held action")), "in these steps")
    results().print(table(f"play that sees nothing, {record['protocol']}", columns, rows))
    say(results(), record["how"])


def row(game: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    held = found["held"]
    return game, with_episodes(found["random"]), with_episodes(held), policy_text(held)


def mean_text(found: Mapping[str, Any]) -> str:
    """As in `12.3 ± 0.4`, large ones as in `1,230 ± 40`."""
    decimals = decimals_of(found["mean"])
    stderr = found["stderr"]
    error = "--" if stderr is None else f"{stderr:,.{decimals}f}"
    return f"{found['mean']:,.{decimals}f} ± {error}"


def return_text(value: float) -> str:
    """As in `12.3`, large ones as in `1,230`."""
    return f"{value:,.{decimals_of(value)}f}"


def decimals_of(value: float) -> int:
    return 0 if abs(value) >= 100 else 1


def with_episodes(found: Mapping[str, Any]) -> str:
    """As in `12.3 ± 0.4 (20)`: of so many episodes."""
    return f"{mean_text(found)} ({len(found['returns'])})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Random play and the best held action of games.")
    parser.add_argument("--games", nargs="+", default=GAMES, help="RoadRunner, or a Gymnasium id")
    parser.add_argument("--protocol", default="atari100k")
    parser.add_argument("--random-episodes", type=int, default=40)
    parser.add_argument("--scan-episodes", type=int, default=3, help="for each action and share")
    parser.add_argument("--max-steps", type=int, default=1_000, help="of an episode of the scan")
    parser.add_argument("--candidates", type=int, default=3, help="policies evaluated afresh")
    parser.add_argument("--episodes", type=int, default=20, help="of each of them")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
