"""A demonstration within minutes: train on a game, compare with random play, film the dreams."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from scipy.stats import mannwhitneyu

from stormrl import runs
from stormrl.agent import Agent
from stormrl.config import RunConfig
from stormrl.envs import PROTOCOLS
from stormrl.evaluate import random_scores
from stormrl.figures import Curve, learning_curve
from stormrl.film import dream_film, write_film
from stormrl.jsonlines import plain, read_jsonlines
from stormrl.presets import agent_config
from stormrl.progress import Progress, SilentProgress
from stormrl.record import EPISODES
from stormrl.scoring import mean_and_stderr, score_text

CLEAR = 0.01
"""An agent is called better if random play reaches such returns with less than this chance."""
CONTEXT, HORIZON, FILMED = 8, 24, 3
RANDOM_SEED, FILM_SEED = 3_000_000, 2_000_000


class Plan(NamedTuple):
    """What is demonstrated, and how much of it."""

    env: str
    steps: int
    """Environment steps at most."""
    minutes: float
    """Training time at most."""
    episodes: int
    """Episodes by which random and trained agent are compared."""
    entropy: float
    """Weight of the policy's entropy."""
    ratio: float
    """Updates for each environment step."""
    size: str = "tiny"
    preset: str = "paper"
    protocol: str = "atari100k"
    seed: int = 0


DEMO = Plan("ALE/MsPacman-v5", steps=9_000, minutes=6, episodes=20, entropy=3e-3, ratio=0.5)
"""A real Atari game in which random play meets a reward every twenty steps, and in which holding on
to a direction brought more in a small scan. No game has been found yet that the tiny size learns in
so few minutes; the demonstration says what came of it."""
TOY = Plan("stormrl/Catch-v0", steps=3_800, minutes=5, episodes=20, entropy=3e-2, ratio=1.0)
"""Learned well beyond random play: for when the Atari game is not in so short a time."""


class Comparison(NamedTuple):
    """One game's result."""

    plan: Plan
    run_dir: Path
    step: int
    trained_s: float
    random: Sequence[float]
    trained: Sequence[float]
    files: Sequence[Path]

    @property
    def chance(self) -> float:
        """One-sided Mann-Whitney test: how probable such returns are if the agent is no better."""
        if set(self.random) == set(self.trained) and len(set(self.random)) == 1:
            return 1.0
        return float(mannwhitneyu(self.trained, self.random, alternative="greater").pvalue)

    @property
    def clear(self) -> bool:
        """Whether the trained agent is clearly better than random play."""
        return self.chance < CLEAR

    def record(self) -> dict[str, Any]:
        """The result, JSON-able."""
        players = {}
        for name, returns in (("random", self.random), ("trained", self.trained)):
            mean, stderr = mean_and_stderr(returns)
            players[name] = {"mean": mean, "stderr": stderr, "returns": list(returns)}
        return {
            "env": self.plan.env,
            "protocol": self.plan.protocol,
            "size": self.plan.size,
            "run_dir": str(self.run_dir),
            "step": self.step,
            "trained_s": self.trained_s,
            **players,
            "mann_whitney_p": self.chance,
            "clearly_better": self.clear,
            "files": [str(path) for path in self.files],
        }


class Deadline(SilentProgress):
    """A progress display that asks the training to stop, as Ctrl-C does, when time is up."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        self.progress = progress
        self.seconds = seconds
        self.reached = False

    def __enter__(self) -> Self:
        self.started_s = time.monotonic()
        self.progress.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.__exit__(*exception)

    def update(
        self, step: int, updates: int, metrics: Mapping[str, float], episode_return: float | None
    ) -> None:
        """Pass it on, and look at the clock."""
        self.progress.update(step, updates, metrics, episode_return)
        if not self.reached and time.monotonic() - self.started_s > self.seconds:
            self.reached = True
            signal.raise_signal(signal.SIGINT)

    def message(self, text: str) -> None:
        """Pass it on."""
        self.progress.message(text)


def demonstrate(
    out: Path,
    plans: Sequence[Plan] = (DEMO, TOY),
    progress: Callable[[int], Progress] = lambda steps: SilentProgress(),
    started: runs.Started = lambda trainer: None,
) -> list[Comparison]:
    """Work through the plans, in order, until an agent is clearly better than random play.

    Writes films, curves, `summary.json` and `summary.md` to `out`. progress: makes the display of
    a training of so many steps. started: called before each. Raises KeyboardInterrupt if the user
    stops a training.
    """
    comparisons = []
    for plan in plans:
        comparisons.append(compare(plan, out, progress(plan.steps), started))
        _write_summary(out, comparisons)
        if comparisons[-1].clear:
            break
    return comparisons


def compare(plan: Plan, out: Path, progress: Progress, started: runs.Started) -> Comparison:
    """Train an agent, let it and chance play, draw its learning curve and film its dreams."""
    config, game = _config(plan), runs.game_name(plan.env)
    run_dir = runs.fresh(out / f"run-{game}")
    deadline = Deadline(progress, 60 * plan.minutes)
    started_s = time.monotonic()
    outcome = runs.train(config, run_dir, deadline, started)
    if not (outcome.finished or deadline.reached):
        raise KeyboardInterrupt
    trained_s = time.monotonic() - started_s
    progress.message(f"{plan.env}: {plan.episodes} episodes of random play and of the agent")
    protocol, agent = PROTOCOLS[plan.protocol], Agent.load(run_dir)
    random = random_scores(plan.env, protocol, plan.episodes, RANDOM_SEED)
    trained = runs.agent_scores(agent, plan.episodes, protocol)
    comparison = Comparison(
        plan,
        run_dir,
        outcome.step,
        trained_s,
        [score.total for score in random],
        [score.total for score in trained],
        [out / f"{game}-{name}" for name in ("dream.mp4", "dream.gif", "curve.png")],
    )
    *films, curve = comparison.files
    write_film(films, dream_film(agent, FILMED, CONTEXT, HORIZON, FILM_SEED))
    _draw_curve(curve, comparison)
    return comparison


def table(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """A row for each game: game, steps, random agent, trained agent, p."""
    rows = []
    for comparison in comparisons:
        random, trained = (
            score_text(*mean_and_stderr(returns))
            for returns in (comparison.random, comparison.trained)
        )
        steps = f"{comparison.step:,}"
        rows.append((comparison.plan.env, steps, random, trained, f"{comparison.chance:.2g}"))
    return rows


def verdict(comparison: Comparison) -> str:
    """In words, whatever came out."""
    minutes = comparison.trained_s / 60
    length = f"after {comparison.step:,} steps in {minutes:.1f} minutes"
    if comparison.clear:
        return f"{comparison.plan.env}: {length} the agent is clearly better than random play."
    return f"{comparison.plan.env}: {length} the agent is NOT clearly better than random play."


def _config(plan: Plan) -> RunConfig:
    agent = agent_config(plan.preset, plan.size)
    agent = replace(
        agent,
        actor_critic=replace(agent.actor_critic, entropy=plan.entropy),
        world_model_ratio=plan.ratio,
        agent_ratio=plan.ratio,
    )
    return RunConfig(
        env=plan.env,
        protocol=plan.protocol,
        steps=plan.steps,
        seed=plan.seed,
        preset=plan.preset,
        size=plan.size,
        evaluation_episodes=0,
        agent=agent,
    )


def _draw_curve(path: Path, comparison: Comparison) -> None:
    plan = comparison.plan
    episodes = read_jsonlines(comparison.run_dir / EPISODES)
    curve = Curve([e["step"] for e in episodes], [e["return"] for e in episodes])
    learning_curve(
        path,
        {f"stormrl, size {plan.size}": [curve]},
        f"{plan.env}, seed {plan.seed}",
        random_return=mean_and_stderr(comparison.random),
        frames_per_step=runs.frames_per_step(_config(plan)),
    )


def _write_summary(out: Path, comparisons: Sequence[Comparison]) -> None:
    games = [comparison.record() for comparison in comparisons]
    (out / "summary.json").write_text(json.dumps(plain({"games": games}), indent=2) + "\n")
    header = ("game", "steps", "random agent", "trained agent", "p")
    lines = [header, ("---",) * len(header), *table(comparisons)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    words = "\n\n".join(verdict(comparison) for comparison in comparisons)
    note = "Mean return ± standard error; p: one-sided Mann-Whitney test of trained against random."
    (out / "summary.md").write_text(f"{text}\n\n{note}\n\n{words}\n")
