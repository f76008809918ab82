"""Typed, frozen configuration. The text below each field is its help on the command line.

A run is described by one `RunConfig`. Algorithm and size are two separate questions, answered by
`stormrl.config.presets`; every field can then be changed on its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stormrl.errors import UserError


def _require(condition: bool, name: str, remedy: str) -> None:
    if not condition:
        raise UserError(name, remedy)


def _positive(config: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value > 0, f"{prefix}.{name}", f"is {value}; give a number above 0")


def _fraction(config: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value <= 1, f"{prefix}.{name}", f"is {value}; give a number from 0 to 1")


@dataclass(frozen=True)
class ConvConfig:
    """Convolutional encoder and decoder for 64 x 64 images."""

    channels: int = 32
    """Channels of the first encoder stage; each of the three further stages doubles them."""

    def __post_init__(self) -> None:
        _positive(self, "world_model.image", "channels")


@dataclass(frozen=True)
class CategoricalConfig:
    """A latent of several independent categorical variables."""

    categoricals: int = 32
    """Number of categorical variables (K)."""
    classes: int = 32
    """Classes of each variable (C)."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into posterior and prior."""

    def __post_init__(self) -> None:
        _positive(self, "world_model.latent", "categoricals", "classes")
        _fraction(self, "world_model.latent", "unimix")

    @property
    def size(self) -> int:
        """Length Z of the flattened one-hot latent."""
        return self.categoricals * self.classes


@dataclass(frozen=True)
class TransformerConfig:
    """Causal Transformer over one token per environment step."""

    width: int = 512
    """Width D of tokens and hidden states."""
    layers: int = 2
    """Number of Transformer blocks."""
    heads: int = 8
    """Attention heads; must divide the width."""
    feedforward: int = 1024
    """Hidden width of the feed-forward part of a block."""
    max_length: int = 64
    """Number of learned positions: the longest sequence the model can see."""
    dropout: float = 0.1
    """Dropout after the attention output and after the feed-forward part."""
    attention_dropout: float = 0.1
    """Dropout on attention weights."""

    def __post_init__(self) -> None:
        prefix = "world_model.sequence"
        _positive(self, prefix, "width", "layers", "heads", "feedforward", "max_length")
        _fraction(self, prefix, "dropout", "attention_dropout")
        _require(
            self.width % self.heads == 0,
            f"{prefix}.width",
            f"{self.width} is not divisible by {self.heads} heads; change width or heads",
        )


@dataclass(frozen=True)
class HeadConfig:
    """Multi-layer perceptron that reads a prediction from a state."""

    layers: int = 2
    """Hidden layers."""
    width: int = 512
    """Width of the hidden layers."""

    def __post_init__(self) -> None:
        _positive(self, "head", "layers", "width")


@dataclass(frozen=True)
class TwoHotConfig:
    """Uniform bins in symlog space for distributional regression."""

    bins: int = 255
    """Number of bins."""
    low: float = -20.0
    """Lowest bin, in symlog units."""
    high: float = 20.0
    """Highest bin, in symlog units."""
    mean: Literal["symlog", "natural"] = "symlog"
    """Where the mean of the bins is taken: in symlog units, which crushes what is large and unsure,
    or in natural units (DreamerV3 of 2024)."""
    start: Literal["random", "zero"] = "random"
    """Weights of the last layer to begin with; with zero the first predictions are all the same."""

    def __post_init__(self) -> None:
        _require(self.bins >= 2, "two_hot.bins", f"is {self.bins}; give at least 2")
        _require(self.low < self.high, "two_hot.low", "must be below two_hot.high")
        _require(
            self.mean == "symlog" or self.low == -self.high,
            "two_hot.low",
            f"is {self.low}; a mean in natural units needs -two_hot.high ({-self.high})",
        )


@dataclass(frozen=True)
class LossBalanceConfig:
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
class OptimizerConfig:
    """Adam with gradient clipping."""

    learning_rate: float = 1e-4
    """Step size."""
    epsilon: float = 1e-8
    """Adam's epsilon."""
    clip: float = 1000.0
    """Largest global gradient norm."""

    def __post_init__(self) -> None:
        _require(
            self.learning_rate >= 0,
            "optimizer.learning_rate",
            f"is {self.learning_rate}; give 0 or more",
        )
        _positive(self, "optimizer", "epsilon", "clip")


@dataclass(frozen=True)
class WorldModelConfig:
    """World model: image autoencoder, latent, sequence model, predictors and losses."""

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
    dynamics_weight: float = 0.5
    """Weight of the dynamics loss (beta 1)."""
    representation_weight: float = 0.1
    """Weight of the representation loss (beta 2)."""
    free_nats: float = 1.0
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
    batch_size: int = 16
    """Windows in one world-model batch (B)."""
    batch_length: int = 64
    """Steps in one window (T)."""

    def __post_init__(self) -> None:
        _positive(self, "world_model", "batch_size")
        for name in ("dynamics_weight", "representation_weight", "free_nats"):
            value = getattr(self, name)
            _require(value >= 0, f"world_model.{name}", f"is {value}; give 0 or more")
        _require(
            2 <= self.batch_length <= self.sequence.max_length,
            "world_model.batch_length",
            f"is {self.batch_length}; give 2 to world_model.sequence.max_length "
            f"({self.sequence.max_length})",
        )


@dataclass(frozen=True)
class ImaginationConfig:
    """Rollouts of the policy inside the world model."""

    dreams_from: Literal["contexts", "posteriors"] = "contexts"
    """Where trajectories start: after contexts that are drawn and encoded for them (STORM), or in
    every state of the world model's own batch that leaves room for the horizon (DreamerV3)."""
    batch_size: int = 1024
    """Imagined trajectories in one agent update, if they start from contexts."""
    context: int = 8
    """Real steps that each trajectory starts from, if it starts from a context."""
    horizon: int = 16
    """Imagined steps (H)."""
    continuation: Literal["probability", "threshold"] = "probability"
    """Weight later rewards by the probability to go on, or by 0 or 1 (as the released code)."""

    def __post_init__(self) -> None:
        _positive(self, "imagination", "batch_size", "context", "horizon")


@dataclass(frozen=True)
class ActorCriticConfig:
    """Policy and value function, trained on imagined trajectories."""

    head: HeadConfig = HeadConfig()
    """Networks of actor and critic."""
    two_hot: TwoHotConfig = TwoHotConfig()
    """Bins of the critic."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-5, epsilon=1e-5, clip=100.0)
    """One optimizer for actor and critic."""
    state: Literal["zh", "z", "h", "frame"] = "zh"
    """What the agent sees: latent and hidden state, one of them, or the reconstructed frame."""
    gamma: float = 0.985
    """Discount per step."""
    lambda_: float = 0.95
    """Mixing of the lambda-return."""
    bootstrap: Literal["next", "current"] = "next"
    """Value in the lambda-return's (1 - lambda) term: V(s_t+1), or V(s_t) (released code)."""
    entropy: float = 3e-4
    """Weight of the policy's entropy, until it falls."""
    entropy_end: float = 0.0
    """Weight of the policy's entropy once it has fallen."""
    entropy_hold: int = 0
    """Updates before the weight begins to fall."""
    entropy_updates: int = 0
    """Updates over which the weight then goes from entropy to entropy_end, in a straight line; with
    0 it stays what it is."""
    unimix: float = 0.0
    """Share of the uniform distribution mixed into the policy."""
    slow_target: Literal["value", "lambda_return"] = "value"
    """What the slow critic pulls the critic to: its value, or a lambda-return of its values
    (as the released code)."""
    slow_decay: float = 0.98
    """Decay of the slow critic's average."""
    percentile_low: float = 0.05
    """Lower percentile of the return scale."""
    percentile_high: float = 0.95
    """Upper percentile of the return scale."""
    scale_decay: float = 0.99
    """Decay of the return scale's average."""
    scale_floor: float = 1.0
    """Least number that advantages are divided by."""

    def __post_init__(self) -> None:
        _fraction(self, "actor_critic", "gamma", "lambda_", "slow_decay", "scale_decay", "unimix")
        _positive(self, "actor_critic", "scale_floor")
        for name in ("entropy", "entropy_end", "entropy_hold", "entropy_updates"):
            value = getattr(self, name)
            _require(value >= 0, f"actor_critic.{name}", f"is {value}; give 0 or more")
        _require(
            0 < self.percentile_low < self.percentile_high <= 1,
            "actor_critic.percentile_low",
            "must be above 0 and below percentile_high, which is at most 1",
        )


@dataclass(frozen=True)
class ActingConfig:
    """How the agent acts in a real environment."""

    context: int = 16
    """Past steps that the agent looks back on."""
    latent: Literal["posterior", "prior"] = "posterior"
    """Latent shown to the policy: of the current frame, or the one predicted before it is seen
    (as the released code)."""
    memory: Literal["episode", "endless"] = "episode"
    """Forget the past at a reset, or carry it into the next episode (as the released code)."""

    def __post_init__(self) -> None:
        _positive(self, "acting", "context")


@dataclass(frozen=True)
class ReplayConfig:
    """Experience on the training device."""

    capacity: int = 100_000
    """Steps kept; the oldest are overwritten."""
    warmup: int = 1024
    """Steps of uniformly random actions before training starts."""
    rewarded: float = 0.0
    """Share of the world model's windows, rounded up to whole ones, that are drawn around a step
    with a reward, if there is one; the others are drawn uniformly."""

    def __post_init__(self) -> None:
        _positive(self, "replay", "capacity", "warmup")
        _fraction(self, "replay", "rewarded")
        _require(
            self.warmup <= self.capacity,
            "replay.warmup",
            f"{self.warmup} does not fit the capacity of {self.capacity}",
        )


@dataclass(frozen=True)
class DemonstrationConfig:
    """Episodes of somebody else, mixed into every batch beside the agent's own experience."""

    path: str = ""
    """File of episodes, as `stormrl record` writes them; without one, nothing is mixed in."""
    world_model_windows: int = 4
    """Windows of the demonstration in a world-model batch, on top of world_model.batch_size."""
    imagination_windows: int = 256
    """Imagined trajectories that start in the demonstration, on top of imagination.batch_size."""

    def __post_init__(self) -> None:
        for name in ("world_model_windows", "imagination_windows"):
            value = getattr(self, name)
            _require(value >= 0, f"demonstration.{name}", f"is {value}; give 0 or more")


@dataclass(frozen=True)
class AgentConfig:
    """The algorithm: everything that decides what is learned."""

    world_model: WorldModelConfig = WorldModelConfig()
    """World model."""
    imagination: ImaginationConfig = ImaginationConfig()
    """Imagined rollouts."""
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    """Actor and critic."""
    acting: ActingConfig = ActingConfig()
    """Acting in the environment."""
    replay: ReplayConfig = ReplayConfig()
    """Replay."""
    demonstration: DemonstrationConfig = DemonstrationConfig()
    """Demonstration."""
    world_model_ratio: float = 1.0
    """World-model updates for each environment step; below one, an update every few steps."""
    agent_ratio: float = 1.0
    """Actor-critic updates for each environment step; below one, an update every few steps."""

    def __post_init__(self) -> None:
        for name in ("world_model_ratio", "agent_ratio"):
            value = getattr(self, name)
            _require(value >= 0, name, f"is {value}; give 0 or more")
        positions = self.world_model.sequence.max_length
        dream = self.imagination.context + self.imagination.horizon
        _require(
            dream <= positions,
            "imagination.horizon",
            f"context + horizon is {dream}, above world_model.sequence.max_length ({positions})",
        )
        _require(
            self.acting.context <= positions,
            "acting.context",
            f"is {self.acting.context}, more than world_model.sequence.max_length ({positions})",
        )
        needed = max(self.world_model.batch_length, self.imagination.context)
        _require(
            needed <= self.replay.warmup,
            "replay.warmup",
            f"{self.replay.warmup} steps hold no window of {needed}; raise replay.warmup or lower "
            "world_model.batch_length",
        )
        if self.imagination.dreams_from == "posteriors":
            self._check_branching()

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
        window, dreams = self.world_model.batch_length, self.imagination
        context = dreams.context if dreams.dreams_from == "contexts" else 1
        # The last step of a window has no successor: what the prior says there is not trained.
        _require(
            context + dreams.horizon < window,
            "imagination.horizon",
            f"reaches step {context + dreams.horizon} of a window (context {context}, horizon "
            f"{dreams.horizon}), and the prior is trained on the first {window - 1} of "
            f"world_model.batch_length ({window}); lower it or raise world_model.batch_length",
        )
        _require(
            self.acting.context <= self.dreamt_steps,
            "acting.context",
            f"is {self.acting.context}, and the policy is trained on states that look back on at "
            f"most {self.dreamt_steps} steps; lower it or raise imagination.horizon",
        )

    def _check_branching(self) -> None:
        room, horizon = self.world_model.batch_length - 2, self.imagination.horizon
        _require(
            horizon <= room,
            "imagination.horizon",
            f"is {horizon}; dreams from posteriors end within world_model.batch_length "
            f"({room + 2}): give at most {room}",
        )
        _require(
            self.world_model_ratio == self.agent_ratio,
            "agent_ratio",
            f"is {self.agent_ratio}; dreams from posteriors take the world model's batch: give "
            f"world_model_ratio ({self.world_model_ratio})",
        )


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    env: str
    """Gymnasium id, such as ALE/Pong-v5 or stormrl/Catch-v0."""
    protocol: str = "atari100k"
    """Named rules of play: official, atari100k or machado."""
    steps: int = 100_000
    """Environment steps (of four emulator frames each on Atari)."""
    seed: int = 0
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
    log_every: int = 100
    """Environment steps between two lines of metrics."""
    checkpoint_every: int = 2_500
    """Environment steps between two checkpoints; one more is written at the end."""
    keep_checkpoints: int = 2
    """Checkpoints to keep; the oldest go first."""
    max_skipped: int = 10
    """Updates in a row, skipped because of numbers that are not finite, after which the run stops;
    looked at whenever metrics are written."""
    evaluate_every: int = 0
    """Environment steps between two evaluations; 0 evaluates at the end alone."""
    evaluation_episodes: int = 20
    """Episodes of each evaluation; 0 evaluates never."""
    dream_every: int = 2_500
    """Environment steps between two dream videos; 0 writes none."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """The algorithm."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every", "keep_checkpoints", "max_skipped"):
            value = getattr(self, name)
            _require(value > 0, name, f"is {value}; give a number above 0")
        for name in ("seed", "evaluate_every", "evaluation_episodes", "dream_every"):
            value = getattr(self, name)
            _require(value >= 0, name, f"is {value}; give 0 or more")


def to_dict(config: object) -> dict:
    """Nested plain dictionary of a config, ready for JSON."""
    return dataclasses.asdict(config)  # type: ignore[call-overload]


def leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the fields in what `to_dict` gave, with their values."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
