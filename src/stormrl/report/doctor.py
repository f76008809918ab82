"""Diagnostics: why a run does not learn, in words, and the setting to look at.

A check looks at a run's history for one cause. Causes stand in the order in which one brings about
the next, so the first that is found is the one to start with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from stormrl.config.parts import ActorCriticConfig, RunConfig, WorldModelConfig
from stormrl.disk.jsonlines import is_number, read_jsonlines
from stormrl.disk.run_directory import RunDirectory
from stormrl.disk.run_files import EPISODES, METRICS
from stormrl.scores.on_track import Track, track, track_record

ENOUGH = 300
"""World-model updates before which no number tells more than that it is early."""
NEVER_FELL = 0.8
"""A reconstruction loss that keeps this share of its first value has not fallen."""
UNTRAINED = 0.8
"""Share of the loss of uniform logits above which a categorical head counts as untrained."""
BLURRED = 0.9
"""Share of the largest entropy above which the latent tells nothing of the frame."""
GUESSED = 0.75
"""A prior this near to the loss of a uniform guess has learned nothing."""
LEARNABLE = 1e-3
"""Nats between ignorant and perfect reward predictions; below, rewards hardly ever differ."""
EXPLAINED = 0.1
"""Share of the learnable reward loss that a head must have learned not to count as ignorant."""
BEYOND = 10.0
"""How many times the largest return an imagined return may be."""
GONE, MAXIMAL = 0.05, 0.995
"""Shares of the largest entropy between which a policy both explores and chooses."""
SKIPPED = 0.01
"""Share of updates that may be skipped."""


class Finding(NamedTuple):
    """One cause, and what speaks for it."""

    cause: str
    """In a few words; the same for all runs."""
    explanation: str
    """What it means and what to do."""
    evidence: dict[str, float]
    """Figures from the run's histories, by what they are."""
    settings: tuple[str, ...]
    """Config fields to look at, dotted, the first one first."""


@dataclass(frozen=True)
class History:
    """What a run has written down about its learning."""

    config: RunConfig
    metrics: Sequence[Mapping[str, Any]]
    """Lines of metrics.jsonl."""
    returns: Sequence[float]
    """Of the finished training episodes."""
    episodes: Sequence[Mapping[str, Any]] = ()
    """Lines of episodes.jsonl."""

    @classmethod
    def read(cls, run: RunDirectory) -> History:
        """The histories in a run's directory. Raises `UserError` for one that is damaged."""
        episodes = read_jsonlines(run.path / EPISODES)
        returns = [total for episode in episodes if is_number(total := episode.get("return"))]
        return cls(run.config, read_jsonlines(run.path / METRICS), returns, episodes)

    @property
    def updates(self) -> int:
        """World-model updates so far."""
        return int(self.last("update") or 0)

    @property
    def track(self) -> Track | None:
        """How it stands beside published learning curves; None if there are none of its game."""
        return track(self.config, self.episodes, int(self.last("step") or 0))

    def series(self, name: str) -> list[float]:
        """Every finite value of a metric, oldest first."""
        return [line[name] for line in self.metrics if is_number(line.get(name))]

    def first(self, name: str) -> float | None:
        """A metric's oldest value."""
        return next(iter(self.series(name)), None)

    def last(self, name: str) -> float | None:
        """A metric's newest value."""
        return next(reversed(self.series(name)), None)

    def late(self, name: str) -> float:
        """Mean of a metric over the newest quarter of its values; NaN if it has none."""
        values = self.series(name)
        return _mean(values[-math.ceil(len(values) / 4) :])


Check = Callable[[History], Finding | None]


def diagnose(history: History) -> list[Finding]:
    """Every cause that the histories speak for, the one to start with first."""
    early = too_few_updates(history)
    if early is not None:
        return [early]
    findings = [check(history) for check in CHECKS]
    return [finding for finding in findings if finding is not None]


def examine(run: str | Path, allow_import: Sequence[str] = ()) -> dict[str, Any]:
    """All that the doctor has to say of a run, ready for JSON.

    allow_import: as of `RunDirectory.open`.
    Raises `UserError` if the run cannot be read.
    """
    directory = RunDirectory.open(run, allow_import)
    history = History.read(directory)
    findings = diagnose(history)
    return {
        "run": str(directory.path),
        "env": history.config.env,
        "step": int(history.last("step") or 0),
        "updates": history.updates,
        "healthy": not findings,
        "findings": [
            finding._asdict()
            | {"settings": {name: setting(history.config, name) for name in finding.settings}}
            for finding in findings
        ],
        "facts": facts(history),
        "on_track": track_record(history.config, history.track),
    }


def setting(config: RunConfig, name: str) -> object:
    """Value of a dotted field of the run's config or of its agent's."""
    owner = config if hasattr(config, name.partition(".")[0]) else config.agent
    return reduce(getattr, name.split("."), owner)


def facts(history: History) -> dict[str, float | None]:
    """Figures that tell how the run goes, whether or not anything is wrong with it."""
    fifth = math.ceil(len(history.returns) / 5)
    return {
        "return, first fifth of the episodes": _mean(history.returns[:fifth]),
        "return, last fifth of the episodes": _mean(history.returns[-fifth:]),
        "reconstruction loss, first": history.first("world_model/reconstruction"),
        "reconstruction loss, now": history.late("world_model/reconstruction"),
        "share of the reward signal explained": _explained(history),
        "prior's loss, of that of a uniform guess": _guessing(history),
        "policy entropy, of its maximum": _entropy_share(history),
    }


def too_few_updates(history: History) -> Finding | None:
    """Nothing can be said of a run that has hardly begun to train."""
    updates, step = history.updates, history.last("step") or 0
    if updates >= ENOUGH:
        return None
    ratio = history.config.agent.world_model_ratio
    settings = ("steps", "replay.warmup", "world_model_ratio")
    return Finding(
        "too few updates so far",
        f"The world model was updated {updates:,} times; below {ENOUGH} nothing else can be told. "
        "Toy games take some thousand updates, Atari games tens of thousands. Train for longer, or "
        "make more updates for each step.",
        {"updates": updates, "steps in the newest line": step},
        settings if ratio >= 0.5 else settings[::-1],
    )


def skipped_updates(history: History) -> Finding | None:
    """Gradients that are not finite are not applied."""
    shares = {part: history.late(f"{part}/skipped") for part in ("world_model", "agent")}
    if not any(share > SKIPPED for share in shares.values()):
        return None
    return Finding(
        "updates are skipped",
        "Gradients were not finite, and such an update changes nothing. The run's diagnosis.jsonl "
        "names the steps they were about: a reward that is not finite comes from the environment, "
        "anything else from a learning rate or a precision that is too coarse.",
        {f"share of skipped updates, {part}": share for part, share in shares.items()},
        (
            "world_model.optimizer.learning_rate",
            "actor_critic.optimizer.learning_rate",
            "precision",
        ),
    )


def reconstruction_not_falling(history: History) -> Finding | None:
    """The autoencoder comes first: without it nothing downstream has anything to learn from."""
    name = "world_model/reconstruction"
    first, late = history.first(name), history.late(name)
    begun = history.first("update")
    seen_early = begun is not None and begun <= history.updates / 2
    if first is None or not seen_early or not late > NEVER_FELL * first:
        return None
    return Finding(
        "reconstruction does not fall",
        "The world model reconstructs frames no better than in the beginning, so it learns "
        "nothing. Its optimizer does not move it (learning rate 0 or far too small) or throws it "
        "about (far too large).",
        {
            "reconstruction loss, first": first,
            "reconstruction loss, now": late,
            "gradient norm": history.late("world_model/gradient_norm"),
        },
        ("world_model.optimizer.learning_rate", "world_model.optimizer.clip"),
    )


def latent_collapsed(history: History) -> Finding | None:
    """Posteriors that are all alike agree with any prior: KL zero, and nothing is encoded."""
    entropy = history.late("world_model/posterior_entropy")
    world_model = history.config.agent.world_model
    if not isinstance(world_model, WorldModelConfig):
        return None
    largest = math.log(world_model.latent.classes)
    if not entropy > BLURRED * largest:
        return None
    return Finding(
        "KL collapsed: the latent carries nothing",
        "The posterior is nearly uniform whatever the frame shows. A KL loss that weighs too much, "
        "or that pulls below every free nat, buys agreement of prior and posterior by giving up "
        "the frames.",
        {
            "posterior entropy, nats a variable": entropy,
            "its maximum": largest,
            "KL, nats": history.late("world_model/kl"),
        },
        (
            "world_model.representation_weight",
            "world_model.dynamics_weight",
            "world_model.free_nats",
        ),
    )


def prior_not_learning(history: History) -> Finding | None:
    """A prior that is no better than a guess makes every dream noise."""
    share = _guessing(history)
    if not share > GUESSED:
        return None
    return Finding(
        "the prior does not learn",
        "The KL between posterior and prior is that of a uniform guess: what happens next is not "
        "learned, and dreams are noise. The dynamics loss weighs nothing, or too little.",
        {
            "KL, nats": history.late("world_model/kl"),
            "share of a uniform guess's KL": share,
            "prior entropy, nats a variable": history.late("world_model/prior_entropy"),
        },
        ("world_model.dynamics_weight", "world_model.representation_weight"),
    )


def no_reward(history: History) -> Finding | None:
    """Rewards that never differ teach nothing."""
    learnable = _learnable(history)
    if not learnable < LEARNABLE:
        return None
    return Finding(
        "rewards hardly ever differ",
        "Nearly every step of replay has the same reward, so there is nothing to be better at. "
        "The agent must meet rewards by chance first: let it act at random for longer, keep its "
        "entropy up, or show it a demonstration.",
        {"learnable reward loss, nats": learnable},
        ("replay.warmup", "actor_critic.entropy", "demonstration.path"),
    )


def reward_head_ignorant(history: History) -> Finding | None:
    """A reward head at its prior rewards all dreams alike."""
    explained = _explained(history)
    if not explained < EXPLAINED:
        return None
    return Finding(
        "the reward head is at its prior",
        "Rewards are predicted no better than by one guess for all steps, so no dream is better "
        "than another for the agent. The head does not learn, sees too little, or the rewards lie "
        "outside of its bins.",
        {
            "reward loss": history.late("world_model/reward"),
            "reward loss of one guess for all steps": history.late("world_model/reward_ignorant"),
            "reward loss of perfect knowledge": history.late("world_model/reward_perfect"),
        },
        ("world_model.head.width", "world_model.predictor_input", "world_model.two_hot.high"),
    )


def agent_never_updated(history: History) -> Finding | None:
    """The world model alone plays no game."""
    if history.series("agent/total"):
        return None
    return Finding(
        "the agent is never updated",
        "The world model is trained, actor and critic are not.",
        {"updates of the world model": history.updates},
        ("agent_ratio",),
    )


def critic_not_learning(history: History) -> Finding | None:
    """A critic that stays as it was drawn says that the agent's optimizer moves nothing."""
    actor_critic = history.config.agent.actor_critic
    if not isinstance(actor_critic, ActorCriticConfig):
        return None
    uniform = math.log(actor_critic.two_hot.bins)
    loss = history.late("agent/value")
    if not loss > UNTRAINED * uniform:
        return None
    return Finding(
        "the agent does not learn",
        "The critic's loss is still that of an untrained critic: the agent's optimizer does not "
        "move it.",
        {"critic loss": loss, "loss of uniform predictions": uniform},
        ("actor_critic.optimizer.learning_rate",),
    )


def value_exploding(history: History) -> Finding | None:
    """Values feed on themselves where the discount lets them."""
    largest = max(map(abs, history.returns), default=math.inf)
    imagined = abs(history.late("agent/imagined_return"))
    spread = history.late("agent/return_scale")
    if not max(imagined, spread) > BEYOND * max(largest, 1.0):
        return None
    return Finding(
        "the value scale explodes",
        "The agent expects returns far beyond any that an episode has had: the critic feeds on its "
        "own predictions, or the dreams promise rewards that do not exist.",
        {
            "imagined return": imagined,
            "range of imagined returns": spread,
            "largest return of an episode": largest,
        },
        ("actor_critic.gamma", "actor_critic.slow_decay", "imagination.horizon"),
    )


def entropy_gone(history: History) -> Finding | None:
    """A policy without entropy tries nothing new; that is fine once it has become good."""
    share = _entropy_share(history)
    if not share < GONE or _improved(history.returns):
        return None
    return Finding(
        "the policy's entropy is gone",
        "The policy has settled on its actions although returns have not risen, so it never sees "
        "what others would bring.",
        {
            "policy entropy, nats": history.late("agent/entropy"),
            "share of its maximum": share,
        },
        ("actor_critic.entropy", "actor_critic.unimix", "actor_critic.optimizer.learning_rate"),
    )


def entropy_maximal(history: History) -> Finding | None:
    """A policy as uniform as can be does not care for what it does."""
    share = _entropy_share(history)
    if not share > MAXIMAL:
        return None
    return Finding(
        "the policy's entropy is stuck at its maximum",
        "Actions are drawn as good as uniformly. The entropy bonus outweighs every advantage, or "
        "there is no advantage to be had.",
        {
            "policy entropy, nats": history.late("agent/entropy"),
            "share of its maximum": share,
            "range of imagined returns": history.late("agent/return_scale"),
        },
        ("actor_critic.entropy", "actor_critic.optimizer.learning_rate"),
    )


CHECKS: tuple[Check, ...] = (
    skipped_updates,
    reconstruction_not_falling,
    latent_collapsed,
    prior_not_learning,
    no_reward,
    reward_head_ignorant,
    agent_never_updated,
    critic_not_learning,
    value_exploding,
    entropy_gone,
    entropy_maximal,
)
"""Each of them is asked, in this order, once there are enough updates."""


def _guessing(history: History) -> float:
    """KL as a share of what it would be if the prior were uniform."""
    entropy = history.late("world_model/posterior_entropy")
    world_model = history.config.agent.world_model
    if not isinstance(world_model, WorldModelConfig):
        return math.nan
    latent = world_model.latent
    known = math.log(latent.classes) - entropy
    return _ratio(history.late("world_model/kl"), latent.categoricals * known)


def _learnable(history: History) -> float:
    ignorant = history.late("world_model/reward_ignorant")
    return ignorant - history.late("world_model/reward_perfect")


def _explained(history: History) -> float:
    """How far the reward loss has come from ignorance (0) to perfect knowledge (1).

    NaN where there is hardly anything to be known.
    """
    learnable = _learnable(history)
    gained = history.late("world_model/reward_ignorant") - history.late("world_model/reward")
    return gained / learnable if learnable >= LEARNABLE else math.nan


def _entropy_share(history: History) -> float:
    return _ratio(history.late("agent/entropy"), history.late("agent/uniform_entropy"))


def _improved(returns: Sequence[float]) -> bool:
    """Whether the last fifth of the episodes is better than the first by two standard errors."""
    fifth = math.ceil(len(returns) / 5)
    early, late = returns[:fifth], returns[-fifth:]
    error = math.sqrt((_variance(early) + _variance(late)) / max(fifth, 1))
    return _mean(late) > _mean(early) + 2 * error


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _variance(values: Sequence[float]) -> float:
    return _mean([(value - _mean(values)) ** 2 for value in values])


def _ratio(part: float, whole: float) -> float:
    """NaN where there is no whole."""
    return part / whole if whole > 0 else math.nan
