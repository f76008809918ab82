"""Typed, frozen configuration. The text below each field is its help on the command line.

A run is described by one `RunConfig`. Algorithm and size are two separate questions, answered by
`stormrl.config.presets`; every field can then be changed on its own. What a field may hold stands
in its type; what fields may hold together, in `problems`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

from stormrl.config.common import (
    CategoricalConfig,
    ConvConfig,
    HeadConfig,
    OptimizerConfig,
    SizeSettings,
    Traits,
    TwoHotConfig,
    WorldConfig,
)
from stormrl.config.constraints import Arguments, AtLeast, Fraction, Positive
from stormrl.config.dreamer import DreamerConfig
from stormrl.config.fields import KIND, kind_of
from stormrl.config.twm import AdvantageConfig, TwmConfig
from stormrl.config.validation import Config
from stormrl.errors import UserError


@dataclass(frozen=True)
class TransformerConfig(Config):
    """Causal Transformer over one token per environment step."""

    kind: ClassVar[str] = "transformer"

    width: Annotated[int, Positive] = 512
    """Width D of tokens and hidden states."""
    layers: Annotated[int, Positive] = 2
    """Number of Transformer blocks."""
    heads: Annotated[int, Positive] = 8
    """Attention heads; must divide the width."""
    feedforward: Annotated[int, Positive] = 1024
    """Hidden width of the feed-forward part of a block."""
    max_length: Annotated[int, Positive] = 64
    """Number of learned positions: the longest sequence the model can see."""
    dropout: Annotated[float, Fraction] = 0.1
    """Dropout after the attention output and after the feed-forward part."""
    attention_dropout: Annotated[float, Fraction] = 0.1
    """Dropout on attention weights."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Heads share the width evenly."""
        if self.width % self.heads:
            remedy = f"is not divisible by {self.heads} heads; change width or heads"
            yield "width", f"{self.width} {remedy}"


@dataclass(frozen=True)
class LossBalanceConfig(Config):
    """How the losses of the world model are weighed against each other.

    Learned, as in HarmonyDream (arXiv 2310.00344): each loss L becomes L / exp(s) + log(1 + exp(s))
    with a trained s, the two KL terms sharing one; the loss of the continuation stays as it is.
    """

    weights: Literal["fixed", "learned"] = "fixed"
    """Keep the weights of the equations, or learn a scale for each loss."""
    reconstruction: float = 3.7
    """s of the reconstruction to begin with: about the logarithm of a typical loss."""
    reward: float = -1.5
    """s of the reward to begin with."""
    kl: float = 0.5
    """s of dynamics and representation to begin with."""


@dataclass(frozen=True)
class WorldModelConfig(WorldConfig):
    """World model: image autoencoder, latent, sequence model, predictors and losses."""

    kind: ClassVar[str] = "storm"

    image: ConvConfig = ConvConfig()
    """Image encoder and decoder."""
    latent: CategoricalConfig = CategoricalConfig()
    """Latent representation; its type selects the part."""
    sequence: TransformerConfig = TransformerConfig()
    """Sequence model; its type selects the part."""
    head: HeadConfig = HeadConfig()
    """Reward and continuation predictors."""
    two_hot: TwoHotConfig = TwoHotConfig()
    """Bins of the reward predictor."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer of the world model."""
    dynamics_weight: Annotated[float, AtLeast(0)] = 0.5
    """Weight of the dynamics loss (beta 1)."""
    representation_weight: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the representation loss (beta 2)."""
    free_nats: Annotated[float, AtLeast(0)] = 1.0
    """KL below which dynamics and representation losses exert no pull, in nats."""
    free_nats_for: Literal["both", "representation"] = "both"
    """Losses that have free nats: both, or the representation loss alone. A prior that is left a
    nat short of the posterior takes a wrong turn at two steps of three of a game without chance."""
    balance: LossBalanceConfig = LossBalanceConfig()
    """Weights of the losses."""
    free_nats_over: Literal["step", "batch"] = "step"
    """Clamp the KL of each step, or only its mean over batch and time (as the released code)."""
    episode_boundaries: Literal["respect", "ignore"] = "respect"
    """Whether attention and KL stop at a reset, or run across it (as the released code)."""
    decoder_input: Literal["posterior", "prior"] = "posterior"
    """Latent that the image decoder reads; `prior` is the ablation "decoder at rear"."""
    predictor_input: Literal["hidden", "latent"] = "hidden"
    """What reward and continuation read; `latent` is the ablation "predictor at front"."""
    batch_size: Annotated[int, Positive] = 16
    """Windows in one world-model batch (B)."""
    batch_length: Annotated[int, AtLeast(2)] = 64
    """Steps in one window (T)."""

    @property
    def traits(self) -> Traits:
        """A row of the literature's table."""
        sequence = self.sequence
        return Traits(
            sequence_model=f"Transformer, {sequence.layers} x {sequence.width}",
            tokens="latent with action",
            latent=str(self.latent),
            historical_information=False,
        )

    def sized(self, size: SizeSettings) -> Self:
        """The same at a named size."""
        sequence = replace(self.sequence, width=size.width, heads=4, feedforward=2 * size.width)
        return replace(
            self,
            image=ConvConfig(size.channels),
            latent=CategoricalConfig(size.categoricals, size.categoricals),
            sequence=sequence,
            head=replace(self.head, width=size.width),
            optimizer=replace(self.optimizer, learning_rate=size.world_rate),
            batch_size=size.windows,
            batch_length=size.window_length,
        )

    @property
    def positions(self) -> int:
        """Longest sequence that the Transformer can see."""
        return self.sequence.max_length

    def attention_scores(self, steps: int) -> int:
        """Each step looks at each, in every head of every layer."""
        return self.sequence.layers * self.sequence.heads * steps**2

    def problems(self) -> Iterator[tuple[str, str]]:
        """A window fits into the sequence model."""
        longest = self.sequence.max_length
        if self.batch_length > longest:
            remedy = f"give 2 to world_model.sequence.max_length ({longest})"
            yield "batch_length", f"is {self.batch_length}; {remedy}"


@dataclass(frozen=True)
class ImaginationConfig(Config):
    """Rollouts of the policy inside the world model."""

    dreams_from: Literal["contexts", "posteriors"] = "contexts"
    """Where trajectories start: after contexts that are drawn and encoded for them (STORM), or in
    every state of the world model's own batch that leaves room for the horizon (DreamerV3)."""
    batch_size: Annotated[int, Positive] = 1024
    """Imagined trajectories in one agent update, if they start from contexts."""
    context: Annotated[int, Positive] = 8
    """Real steps that each trajectory starts from, if it starts from a context."""
    horizon: Annotated[int, Positive] = 16
    """Imagined steps (H)."""
    continuation: Literal["probability", "threshold"] = "probability"
    """Weight later rewards by the probability to go on, or by 0 or 1 (as the released code)."""


@dataclass(frozen=True)
class ActorCriticConfig(Config):
    """Policy and value function, trained on imagined trajectories."""

    kind: ClassVar[str] = "actor_critic"

    head: HeadConfig = HeadConfig()
    """Networks of actor and critic."""
    two_hot: TwoHotConfig = TwoHotConfig()
    """Bins of the critic."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-5, epsilon=1e-5, clip=100.0)
    """Optimizer of actor and critic."""
    optimizers: Literal["one", "two"] = "one"
    """One for both, or one for each, with gradients that are clipped apart (DreamerV3)."""
    counted: Literal["alike", "by_continuation"] = "alike"
    """How much the losses of an imagined step count: all alike, or each by the discounted
    probability that the episode gets there (DreamerV3)."""
    state: Literal["zh", "z", "h", "frame"] = "zh"
    """What the agent sees: latent and hidden state, one of them, or the reconstructed frame."""
    gamma: Annotated[float, Fraction] = 0.985
    """Discount per step."""
    lambda_: Annotated[float, Fraction] = 0.95
    """Mixing of the lambda-return."""
    bootstrap: Literal["next", "current"] = "next"
    """Value in the lambda-return's (1 - lambda) term: V(s_t+1), or V(s_t) (released code)."""
    entropy: Annotated[float, AtLeast(0)] = 3e-4
    """Weight of the policy's entropy, until it falls."""
    entropy_end: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the policy's entropy once it has fallen."""
    entropy_hold: Annotated[int, AtLeast(0)] = 0
    """Updates before the weight begins to fall."""
    entropy_updates: Annotated[int, AtLeast(0)] = 0
    """Updates over which the weight then goes from entropy to entropy_end, in a straight line; with
    0 it stays what it is."""
    unimix: Annotated[float, Fraction] = 0.0
    """Share of the uniform distribution mixed into the policy."""
    slow_target: Literal["value", "lambda_return"] = "value"
    """What the slow critic pulls the critic to: its value, or a lambda-return of its values
    (as the released code)."""
    slow_decay: Annotated[float, Fraction] = 0.98
    """Decay of the slow critic's average."""
    percentile_low: Annotated[float, Positive] = 0.05
    """Lower percentile of the return scale."""
    percentile_high: Annotated[float, Fraction] = 0.95
    """Upper percentile of the return scale."""
    scale_decay: Annotated[float, Fraction] = 0.99
    """Decay of the return scale's average."""
    scale_floor: Annotated[float, Positive] = 1.0
    """Least number that advantages are divided by."""

    @property
    def training(self) -> str:
        """How it is trained, in a row of the literature's table."""
        return "REINFORCE, returns scaled by their range"

    def sized(self, size: SizeSettings) -> Self:
        """The same at a named size."""
        return replace(
            self,
            head=replace(self.head, width=size.width),
            optimizer=replace(self.optimizer, learning_rate=size.agent_rate),
            entropy=size.entropy,
            unimix=size.policy_unimix,
        )

    def problems(self) -> Iterator[tuple[str, str]]:
        """The lower percentile lies below the upper."""
        if self.percentile_low >= self.percentile_high:
            remedy = f"give less than percentile_high ({self.percentile_high})"
            yield "percentile_low", f"is {self.percentile_low}; {remedy}"


@dataclass(frozen=True)
class ActingConfig(Config):
    """How the agent acts in a real environment."""

    context: Annotated[int, Positive] = 16
    """Past steps that the agent looks back on."""
    latent: Literal["posterior", "prior"] = "posterior"
    """Latent shown to the policy: of the current frame, or the one predicted before it is seen
    (as the released code)."""
    memory: Literal["episode", "endless"] = "episode"
    """Forget the past at a reset, or carry it into the next episode (as the released code)."""


@dataclass(frozen=True)
class ReplayConfig(Config):
    """Experience on the training device."""

    capacity: Annotated[int, Positive] = 100_000
    """Steps kept; the oldest are overwritten."""
    warmup: Annotated[int, Positive] = 1024
    """Steps of uniformly random actions before training starts."""
    rewarded: Annotated[float, Fraction] = 0.0
    """Share of the world model's windows, rounded up to whole ones, that are drawn around a step
    with a reward, if there is one; the others are drawn uniformly."""
    balance: Annotated[float, AtLeast(0)] = 0.0
    """Temperature of a softmax over -visits by which the world model's windows are drawn, none
    twice in a batch (TWM); 0 draws all alike."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The warmup fits into the capacity, and windows are drawn in one way."""
        if self.warmup > self.capacity:
            yield "warmup", f"{self.warmup} does not fit the capacity of {self.capacity}"
        if self.balance and self.rewarded:
            yield "rewarded", f"is {self.rewarded}; give 0 where replay.balance is on"


@dataclass(frozen=True)
class DemonstrationConfig(Config):
    """Episodes of somebody else, mixed into every batch beside the agent's own experience."""

    path: str = ""
    """File of episodes, as `stormrl record` writes them; without one, nothing is mixed in."""
    world_model_windows: Annotated[int, AtLeast(0)] = 4
    """Windows of the demonstration in a world-model batch, on top of world_model.batch_size."""
    imagination_windows: Annotated[int, AtLeast(0)] = 256
    """Imagined trajectories that start in the demonstration, on top of imagination.batch_size."""


@dataclass(frozen=True)
class AgentConfig(Config):
    """The algorithm: everything that decides what is learned."""

    world_model: WorldModelConfig | DreamerConfig | TwmConfig = WorldModelConfig()
    """World model; its type selects the part."""
    imagination: ImaginationConfig = ImaginationConfig()
    """Imagined rollouts."""
    actor_critic: ActorCriticConfig | AdvantageConfig = ActorCriticConfig()
    """Actor and critic; its type selects the part."""
    acting: ActingConfig = ActingConfig()
    """Acting in the environment."""
    replay: ReplayConfig = ReplayConfig()
    """Replay."""
    demonstration: DemonstrationConfig = DemonstrationConfig()
    """Demonstration."""
    world_model_ratio: Annotated[float, AtLeast(0)] = 1.0
    """World-model updates for each environment step; below one, an update every few steps."""
    agent_ratio: Annotated[float, AtLeast(0)] = 1.0
    """Actor-critic updates for each environment step; below one, an update every few steps."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Dreams and acting fit into the sequence model, windows into what has been played."""
        positions, dreams = self.world_model.positions, self.imagination
        dream = dreams.context + dreams.horizon
        limit = f"world_model.sequence.max_length ({positions})"
        if positions is not None and dream > positions:
            yield "imagination.horizon", f"context + horizon is {dream}, above {limit}"
        if positions is not None and self.acting.context > positions:
            yield "acting.context", f"is {self.acting.context}, more than {limit}"
        needed = max(self.world_model.window, dreams.context)
        if needed > self.replay.warmup:
            remedy = "raise replay.warmup or lower world_model.batch_length"
            problem = f"{self.replay.warmup} steps hold no window of {needed}"
            yield "replay.warmup", f"{problem}; {remedy}"
        most = self.replay.warmup - self.world_model.window + 1
        if self.replay.balance and self.world_model.batch_size > most:
            problem = f"{self.replay.warmup} steps hold {most} windows, fewer than"
            yield "replay.warmup", f"{problem} world_model.batch_size; raise it"
        if dreams.dreams_from == "posteriors":
            yield from self._branching_problems()

    @property
    def dreamt_steps(self) -> int:
        """Most steps, its own included, that a state which trains the policy looks back on."""
        dreams = self.imagination
        if dreams.dreams_from == "posteriors":
            return self.world_model.batch_length - 2
        return dreams.context + dreams.horizon - 1

    def check_positions(self) -> None:
        """Raises `UserError` if a dream or acting reaches a position that is not trained.

        Nothing ever moved the vector of such a position. Asked of new runs only: what was trained
        before this was checked can still be read.
        """
        if self.world_model.positions is None:
            return
        for path, remedy in self._untrained_positions():
            raise UserError(path, remedy)

    def _untrained_positions(self) -> Iterator[tuple[str, str]]:
        window, dreams = self.world_model.batch_length, self.imagination
        context = dreams.context if dreams.dreams_from == "contexts" else 1
        # The last step of a window has no successor: what the prior says there is not trained.
        if context + dreams.horizon >= window:
            yield (
                "imagination.horizon",
                f"reaches step {context + dreams.horizon} of a window (context {context}, horizon "
                f"{dreams.horizon}), and the prior is trained on the first {window - 1} of "
                f"world_model.batch_length ({window}); lower it or raise world_model.batch_length",
            )
        if self.acting.context > self.dreamt_steps:
            yield (
                "acting.context",
                f"is {self.acting.context}, and the policy is trained on states that look back on "
                f"at most {self.dreamt_steps} steps; lower it or raise imagination.horizon",
            )

    def _branching_problems(self) -> Iterator[tuple[str, str]]:
        room, horizon = self.world_model.batch_length - 2, self.imagination.horizon
        if self.world_model.positions is not None and horizon > room:
            yield (
                "imagination.horizon",
                f"is {horizon}; dreams from posteriors end within world_model.batch_length "
                f"({room + 2}): give at most {room}",
            )
        if self.world_model_ratio != self.agent_ratio:
            yield (
                "agent_ratio",
                f"is {self.agent_ratio}; dreams from posteriors take the world model's batch: give "
                f"world_model_ratio ({self.world_model_ratio})",
            )


@dataclass(frozen=True)
class RunConfig(Config):
    """One training run."""

    env: str
    """Gymnasium id, such as ALE/Pong-v5 or stormrl/Catch-v0."""
    protocol: str = "atari100k"
    """Named rules of play: official, atari100k or machado."""
    steps: Annotated[int, Positive] = 100_000
    """Environment steps (of four emulator frames each on Atari)."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Seed of every random stream of the run."""
    preset: str = "paper"
    """Name of the algorithm preset that the run started from."""
    size: str = "base"
    """Name of the size that the run started from."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the networks; auto takes what the device does fastest when the run begins, and
    the run keeps it."""
    compile: Literal["auto", "off", "on"] = "auto"
    """Compile the update; auto takes the measured best of the device."""
    cuda_graph: Literal["off", "on"] = "off"
    """Launch each update as one CUDA graph; needs a CUDA device."""
    deterministic: bool = False
    """On a GPU, use only algorithms that repeat their bits; slower. A CPU always repeats them."""
    log_every: Annotated[int, Positive] = 100
    """Environment steps between two lines of metrics."""
    checkpoint_every: Annotated[int, Positive] = 2_500
    """Environment steps between two checkpoints; one more is written at the end."""
    keep_checkpoints: Annotated[int, Positive] = 2
    """Checkpoints to keep; the oldest go first."""
    max_skipped: Annotated[int, Positive] = 10
    """Updates in a row, skipped because of numbers that are not finite, after which the run stops;
    looked at whenever metrics are written."""
    evaluate_every: Annotated[int, AtLeast(0)] = 0
    """Environment steps between two evaluations; 0 evaluates at the end alone."""
    evaluation_episodes: Annotated[int, AtLeast(0)] = 20
    """Episodes of each evaluation; 0 evaluates never."""
    dream_every: Annotated[int, AtLeast(0)] = 2_500
    """Environment steps between two dream videos; 0 writes none."""
    env_kwargs: Annotated[Mapping[str, Any], Arguments()] = field(default_factory=dict, hash=False)
    """Arguments of the environment, by name."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """The algorithm."""

    def check_trains(self) -> None:
        """Raises `UserError` if the run would end before anything is learned.

        Asked of new runs only: what ran before this was checked can still be read.
        """
        replay = self.agent.replay
        begins = f"training begins after {replay.warmup} random steps (replay.warmup)"
        if self.steps <= replay.warmup:
            raise UserError("steps", f"is {self.steps}, but {begins}; give more, or lower that")
        if replay.capacity <= replay.warmup:
            problem = f"is {replay.capacity}, but {begins} when replay holds more than those"
            raise UserError("replay.capacity", f"{problem}; give more, or lower that")


def storm(config: AgentConfig) -> WorldModelConfig:
    """The world model of an agent that has STORM's.

    Raises `UserError` if it has another one.
    """
    if not isinstance(config.world_model, WorldModelConfig):
        kind = config.world_model.kind
        raise UserError("world_model.kind", f"is {kind}; this is made for {WorldModelConfig.kind}")
    return config.world_model


def actor_critic(config: AgentConfig) -> ActorCriticConfig:
    """Actor and critic of STORM or DreamerV3, where an agent has them.

    Raises `UserError` if it has others.
    """
    if not isinstance(config.actor_critic, ActorCriticConfig):
        kind = config.actor_critic.kind
        problem = f"is {kind}; this is made for {ActorCriticConfig.kind}"
        raise UserError("actor_critic.kind", problem)
    return config.actor_critic


def reinforce(config: AgentConfig) -> ActorCriticConfig:
    """The actor-critic of an agent that has STORM's. Raises `UserError` if it has another one."""
    if not isinstance(config.actor_critic, ActorCriticConfig):
        kind = config.actor_critic.kind
        remedy = f"this is made for {ActorCriticConfig.kind}"
        raise UserError("actor_critic.kind", f"is {kind}; {remedy}")
    return config.actor_critic


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionary of a config, ready for JSON; a part that is chosen tells its kind."""
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    parts = {name: to_dict(part) for name, part in values.items() if dataclasses.is_dataclass(part)}
    kind = kind_of(config)
    return ({} if kind is None else {KIND: kind}) | values | parts


def leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the fields in what `to_dict` gave, with their values."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
