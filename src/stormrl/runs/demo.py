"""A demonstration within minutes: a pretrained agent plays, two games are learned from scratch."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from stormrl.acting.evaluate import random_scores
from stormrl.config import recipes
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk import pretrained
from stormrl.disk.jsonlines import plain, read_jsonlines
from stormrl.disk.pretrained import Pretrained
from stormrl.disk.run_files import EPISODES
from stormrl.envs import PROTOCOLS
from stormrl.history.progress import Progress, SilentProgress, duration_text
from stormrl.pictures.figures import Curve, learning_curve
from stormrl.runs import packing, whole
from stormrl.runs.agent import Agent
from stormrl.runs.film import dream_film, write_film
from stormrl.runs.trainer import Trainer
from stormrl.scores.held_actions import HeldAction
from stormrl.scores.published import STEPS, STORM, game_of
from stormrl.scores.summary import mean_and_stderr, score_text
from stormrl.scores.yardsticks import PublishedThen, Yardsticks, chance, published_then, yardsticks
from stormrl.seeds import FILM_SEED, GAME_SEED, RANDOM_SEED

CLEAR = 0.01
"""An agent is called better if it would have such returns by less than this chance otherwise."""
CONTEXT, HORIZON, FILMED = 8, 24, 3
GAMES = 2
"""Games that the pretrained agent plays."""
HEADER = ("game", "player", "steps", "return", "p random", "p held")
NOTE = f"""\
Returns are means ± standard errors of whole episodes. held: the best of all policies that keep one
joystick position, whatever they see. p: one-sided Mann-Whitney test that such returns are no better
than random play's, or than the held action's. {STORM}: published mean of its released runs, which
played with sticky actions. DreamerV3: training episodes of its published runs within 5,000 steps,
median seed (lowest to highest)."""


class DemoPlan(NamedTuple):
    """A game that is learned from scratch."""

    config: RunConfig
    share: float
    """Part of the time left that its training takes at most."""
    reserve_s: float
    """Time that its evaluation and its film take, to be set aside."""
    episodes: int = 20
    """Episodes by which random and trained agent are compared."""


DEMO = (
    DemoPlan(recipes.catch(), share=0.3, reserve_s=15),
    DemoPlan(
        RunConfig(
            env="ALE/RoadRunner-v5",
            steps=STEPS,
            preset="lean",
            size="tiny",
            agent=agent_config("lean", "tiny"),
        ),
        share=1.0,
        reserve_s=75,
    ),
)
"""A toy game that is learned in minutes, then a real one for all the time that is left."""


class Screen:
    """What a person sees of a demonstration; of this one, nothing."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def busy(self, text: str) -> AbstractContextManager[object]:
        """To be entered while something takes its time."""
        return nullcontext()

    def training(self, steps: int, seconds: float) -> Progress:
        """The display of a training that ends after so many steps or seconds."""
        return SilentProgress()

    def started(self, trainer: Trainer) -> None:
        """Called before the first step of a training."""


class Show(NamedTuple):
    """What a pretrained agent did."""

    agent: Pretrained
    returns: Sequence[float]
    """Of the games that it played."""
    files: Sequence[Path]

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        config = self.agent.config
        return {
            "name": self.agent.name,
            "env": config.env,
            "protocol": self.agent.protocol,
            "preset": config.preset,
            "size": config.size,
            "step": self.agent.step,
            "command": self.agent.command,
            "returns": list(self.returns),
            "files": [str(path) for path in self.files],
        }


class DemoComparison(NamedTuple):
    """One game's result."""

    plan: DemoPlan
    run_dir: Path
    step: int
    trained_s: float
    random: Sequence[float]
    trained: Sequence[float]
    files: Sequence[Path]
    yardsticks: Yardsticks = Yardsticks()

    @property
    def env(self) -> str:
        """The game."""
        return self.plan.config.env

    @property
    def chance(self) -> float:
        """How probable such returns are if the agent is no better than random play."""
        return chance(self.trained, self.random)

    @property
    def clear(self) -> bool:
        """Whether the trained agent is clearly better than random play."""
        return self.chance < CLEAR

    @property
    def published(self) -> list[PublishedThen]:
        """Published runs after the steps that the agents here have had."""
        agent = self.yardsticks.pretrained
        steps = (self.step, *([] if agent is None else [agent.step]))
        found = (published_then(self.env, step) for step in steps)
        return list(dict.fromkeys(then for then in found if then is not None))

    def as_dict(self) -> dict[str, Any]:
        """The result, JSON-able."""
        config = self.plan.config
        return {
            "env": self.env,
            "protocol": config.protocol,
            "preset": config.preset,
            "size": config.size,
            "seed": config.seed,
            "command": shlex.join(packing.command(config)),
            "run_dir": str(self.run_dir),
            "step": self.step,
            "trained_s": self.trained_s,
            "random": _sample(self.random),
            "trained": _sample(self.trained),
            "mann_whitney_p": self.chance,
            "clearly_better": self.clear,
            "held": self._held_dict(self.yardsticks.held),
            "pretrained": self._pretrained_dict(self.yardsticks.pretrained),
            "published": self._published_records(),
            "files": [str(path) for path in self.files],
        }

    def _held_dict(self, held: HeldAction | None) -> dict[str, Any] | None:
        """The best held action, and the test of the trained agent against it."""
        if held is None:
            return None
        return held._asdict() | {"mann_whitney_p": chance(self.trained, held.returns)}

    def _pretrained_dict(self, agent: Pretrained | None) -> dict[str, Any] | None:
        """The pretrained agent, and its test against random play."""
        if agent is None:
            return None
        returns = list(agent.scores["return"])
        about = {"name": agent.name, "step": agent.step, "command": agent.command}
        return about | _sample(returns) | {"mann_whitney_p": chance(returns, self.random)}

    def _published_records(self) -> list[dict[str, Any]]:
        then = [each._asdict() for each in self.published]
        storm = self.yardsticks.storm
        return then if storm is None else [*then, {"agent": STORM, "end": STEPS, "mean": storm}]


class Demonstration(NamedTuple):
    """All that was demonstrated."""

    minutes: float
    """Time that it was given."""
    seconds: float
    """Time that it took."""
    show: Show | None
    comparisons: Sequence[DemoComparison]

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        return {
            "minutes": self.minutes,
            "seconds": self.seconds,
            "pretrained": None if self.show is None else self.show.as_dict(),
            "games": [comparison.as_dict() for comparison in self.comparisons],
        }

    @property
    def files(self) -> list[Path]:
        """Films and curves."""
        shown = [] if self.show is None else self.show.files
        return [*shown, *(file for each in self.comparisons for file in each.files)]

    @property
    def unfinished(self) -> list[Path]:
        """Runs that time ran out for."""
        compared = self.comparisons
        return [each.run_dir for each in compared if each.step < each.plan.config.steps]


class Deadline(SilentProgress):
    """A progress display that asks the training to stop, as Ctrl-C does, when time is up."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        self.progress = progress
        self.end_s = time.monotonic() + seconds
        self.reached = False

    def __enter__(self) -> Self:
        self.progress.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.__exit__(*exception)

    def update(
        self, step: int, updates: int, metrics: Mapping[str, float], episode_return: float | None
    ) -> None:
        """Pass it on, and look at the clock."""
        self.progress.update(step, updates, metrics, episode_return)
        if not self.reached and time.monotonic() > self.end_s:
            self.reached = True
            signal.raise_signal(signal.SIGINT)

    def message(self, text: str) -> None:
        """Pass it on."""
        self.progress.message(text)


def demonstrate(
    out: Path,
    minutes: float,
    plans: Sequence[DemoPlan] = DEMO,
    screen: Screen | None = None,
) -> Demonstration:
    """Let a pretrained agent play, then train on each game in turn; all of it in `minutes`.

    A game that no time is left for is left out. Writes films, curves, `summary.json` and
    `summary.md` to `out`. screen: shows how it goes; nothing by default. Raises KeyboardInterrupt
    if the user stops a training, `UserError` if a pretrained agent is damaged.
    """
    screen, started_s = screen or Screen(), time.monotonic()
    show = present(out, plans, screen)
    done = Demonstration(minutes, time.monotonic() - started_s, show, ())
    write_summary(out, done)
    for index, plan in enumerate(plans):
        seconds = training_s(plans[index:], 60 * minutes - done.seconds)
        if seconds <= 0:
            screen.say(f"\nNo time is left for {plan.config.env}.")
            continue
        comparisons = [*done.comparisons, compare(plan, seconds, out, screen)]
        done = Demonstration(minutes, time.monotonic() - started_s, show, comparisons)
        write_summary(out, done)
    return done


def training_s(plans: Sequence[DemoPlan], left_s: float) -> float:
    """Seconds at most for the training of the first of the plans that are left."""
    return plans[0].share * (left_s - sum(plan.reserve_s for plan in plans))


def present(out: Path, plans: Sequence[DemoPlan], screen: Screen) -> Show | None:
    """Let a pretrained agent play and film its dreams; None if none comes with the package.

    Raises `UserError` if it is damaged.
    """
    known = choose_pretrained(plans)
    if known is None:
        screen.say("No pretrained agent comes with this version of stormrl.")
        return None
    name = pretrained.PREFIX + known.name
    screen.say(f"{name} plays {known.config.env}, as it came after {known.step:,} steps by")
    screen.say(f"  {known.command}")
    protocol = PROTOCOLS[known.protocol]
    with screen.busy(f"{GAMES} whole games"):
        agent = Agent.load(name)
        scores = whole.agent_scores(agent, GAMES, protocol, GAME_SEED)
    returns = [score.total for score in scores]
    screen.say(f"It returned {_listed(returns)}; random play {_mean_text(known.random['return'])}.")
    films = _film_paths(out, f"pretrained-{known.name.lower()}")
    with screen.busy("a film of its dreams"):
        write_film(films, dream_film(agent, FILMED, CONTEXT, HORIZON, FILM_SEED))
    return Show(known, returns, films)


def choose_pretrained(plans: Sequence[DemoPlan]) -> Pretrained | None:
    """The agent at hand whose game stands last in the plans; any other if there is none.

    Raises `UserError` if a pretrained agent is damaged.
    """
    order = {plan.config.env: index for index, plan in enumerate(plans)}
    return max(pretrained.agents(), key=lambda a: order.get(a.config.env, -1), default=None)


def compare(plan: DemoPlan, seconds: float, out: Path, screen: Screen) -> DemoComparison:
    """Train an agent, let it and chance play, draw its learning curve and film its dreams.

    Raises KeyboardInterrupt if the user stops the training.
    """
    config, game = plan.config, whole.game_name(plan.config.env)
    screen.say(f"\n{config.env} from scratch, in {duration_text(seconds)} at most")
    started_s = time.monotonic()
    run_dir, step = train(config, seconds, whole.fresh(out / f"run-{game}"), screen)
    trained_s = time.monotonic() - started_s
    protocol, agent = PROTOCOLS[config.protocol], Agent.load(run_dir)
    with screen.busy(f"{plan.episodes} episodes of random play"):
        random = random_scores(config.env, protocol, plan.episodes, RANDOM_SEED)
    with screen.busy(f"{plan.episodes} episodes of the trained agent"):
        trained = whole.agent_scores(agent, plan.episodes, protocol)
    films, curve = _film_paths(out, game), out / f"{game}-curve.png"
    comparison = DemoComparison(
        plan,
        run_dir,
        step,
        trained_s,
        [score.total for score in random],
        [score.total for score in trained],
        [*films, curve],
        yardsticks(config.env, config.protocol),
    )
    with screen.busy("a film of its dreams, and its learning curve"):
        write_film(films, dream_film(agent, FILMED, CONTEXT, HORIZON, FILM_SEED))
        _draw_curve(curve, comparison)
    screen.say(verdict(comparison))
    return comparison


def train(config: RunConfig, seconds: float, run_dir: Path, screen: Screen) -> tuple[Path, int]:
    """A run of that many seconds at most: its directory and where it has got to.

    Raises KeyboardInterrupt if the user stops it.
    """
    # It is evaluated and filmed afterwards, in the time that is set aside for that.
    config = replace(config, evaluation_episodes=0, dream_every=0)
    deadline = Deadline(screen.training(config.steps, seconds), seconds)
    outcome = whole.train(config, run_dir, deadline, screen.started)
    if not (outcome.finished or deadline.reached):
        remedy = f"to go on there: stormrl train --resume {run_dir}"
        screen.say(f"Saved at step {outcome.step:,}; {remedy}")
        raise KeyboardInterrupt
    return run_dir, outcome.step


def table(comparisons: Sequence[DemoComparison]) -> list[tuple[str, ...]]:
    """A row for each player of each game, under `HEADER`."""
    return [row for comparison in comparisons for row in _rows(comparison)]


def verdict(comparison: DemoComparison) -> str:
    """In words, whatever came out."""
    minutes = comparison.trained_s / 60
    length = f"after {comparison.step:,} steps in {minutes:.1f} minutes"
    better = f"is {_clearly(comparison.chance)} better than random play"
    held = comparison.yardsticks.held
    if held is not None:
        p = chance(comparison.trained, held.returns)
        better += f", and {_clearly(p)} better than the best held action ({held.name})"
    return f"{comparison.env}: {length} the agent {better}."


def write_summary(out: Path, done: Demonstration) -> None:
    """Write summary.json and summary.md."""
    (out / "summary.json").write_text(json.dumps(plain(done.as_dict()), indent=2) + "\n")
    lines = [HEADER, ("---",) * len(HEADER), *table(done.comparisons)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    words = "\n\n".join(verdict(comparison) for comparison in done.comparisons)
    (out / "summary.md").write_text(f"{text}\n\n{NOTE}\n\n{words}\n")


def _rows(comparison: DemoComparison) -> Iterator[tuple[str, ...]]:
    game, random = game_of(comparison.env).rpartition("/")[2], comparison.random
    held, agent, storm = comparison.yardsticks
    to_held = () if held is None else held.returns

    def agent_row(player: str, step: int, returns: Sequence[float]) -> tuple[str, ...]:
        p_held = f"{chance(returns, to_held):.2g}" if to_held else ""
        p_random = f"{chance(returns, random):.2g}"
        return game, player, f"{step:,}", _mean_text(returns), p_random, p_held

    yield game, "random play", "", _mean_text(random), "", ""
    if held is not None:
        yield game, f"held {held.name}", "", _mean_text(held.returns), "", ""
    yield agent_row("trained here", comparison.step, comparison.trained)
    if agent is not None:
        yield agent_row("pretrained", agent.step, agent.scores["return"])
    for then in comparison.published:
        spread = f"{_number(then.median)} ({_number(then.low)} to {_number(then.high)})"
        yield game, then.agent, f"{then.end:,}", spread, "", ""
    if storm is not None:
        yield game, STORM, f"{STEPS:,}", _number(storm), "", ""


def _sample(returns: Sequence[float]) -> dict[str, Any]:
    mean, stderr = mean_and_stderr(returns)
    return {"mean": mean, "stderr": stderr, "returns": list(returns)}


def _mean_text(returns: Sequence[float]) -> str:
    mean, stderr = mean_and_stderr(returns)
    return score_text(mean, stderr, _decimals(mean))


def _number(value: float) -> str:
    return f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 100 else 2


def _listed(returns: Sequence[float]) -> str:
    return " and ".join(f"{value:g}" for value in returns)


def _clearly(p: float) -> str:
    return "clearly" if p < CLEAR else "NOT clearly"


def _film_paths(out: Path, name: str) -> list[Path]:
    return [out / f"{name}-dream.{suffix}" for suffix in ("mp4", "gif")]


def _draw_curve(path: Path, comparison: DemoComparison) -> None:
    config = comparison.plan.config
    episodes = read_jsonlines(comparison.run_dir / EPISODES)
    curve = Curve([e["step"] for e in episodes], [e["return"] for e in episodes])
    learning_curve(
        path,
        {f"stormrl, size {config.size}": [curve]},
        f"{config.env}, seed {config.seed}",
        random_return=mean_and_stderr(comparison.random),
        frames_per_step=whole.frames_per_step(config),
    )
