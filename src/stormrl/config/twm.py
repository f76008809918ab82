"""Configuration of TWM (Robine et al. 2023): its world model and its agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from stormrl.config.common import (
    CategoricalConfig,
    OptimizerConfig,
    SizeSettings,
    Traits,
    WorldConfig,
)
from stormrl.config.constraints import AtLeast, Fraction, Positive
from stormrl.config.validation import Config


@dataclass(frozen=True)
class PerceptronConfig(Config):
    """Multi-layer perceptron with SiLU and without normalisation."""

    layers: Annotated[int, Positive] = 4
    """Hidden layers."""
    width: Annotated[int, Positive] = 512
    """Width of the hidden layers."""


SEEING, LATENT = PerceptronConfig(layers=2), PerceptronConfig()
OUTCOME = PerceptronConfig(width=256)


@dataclass(frozen=True)
class StackedFramesConfig(Config):
    """Autoencoder of stacked grey 64 x 64 frames."""

    frames: Annotated[int, Positive] = 4
    """Successive frames that are seen at once, the newest last; an episode's first is repeated."""
    channels: Annotated[int, Positive] = 48
    """Channels of the first encoder stage; each of the three further stages doubles them."""
    head: PerceptronConfig = SEEING
    """Perceptron between the convolutions and the latent."""


@dataclass(frozen=True)
class TransformerXLConfig(Config):
    """Transformer-XL with relative positions over three tokens a step: latent, action, reward."""

    kind: ClassVar[str] = "transformer_xl"

    width: Annotated[int, Positive] = 256
    """Width D of tokens and hidden states; even, for half of a position's code are sines."""
    layers: Annotated[int, Positive] = 10
    """Number of Transformer blocks."""
    heads: Annotated[int, Positive] = 4
    """Attention heads."""
    head_width: Annotated[int, Positive] = 64
    """Width of each head."""
    feedforward: Annotated[int, Positive] = 1024
    """Hidden width of the feed-forward part of a block."""
    memory: Annotated[int, Positive] = 16
    """Steps before its own that a token may look back on."""
    dropout: Annotated[float, Fraction] = 0.1
    """Dropout on attention weights, position codes, and after both parts of a block."""
    scale: Literal["width", "head"] = "width"
    """Number whose root attention scores are divided by: the width of tokens (as the released
    code), or that of a head."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """A position's code has as many sines as cosines."""
        if self.width % 2:
            yield "width", f"is {self.width}; give an even number"


@dataclass(frozen=True)
class PretrainingConfig(Config):
    """Updates on the warmup's experience alone, before the agent acts for the first time."""

    observation: Annotated[int, AtLeast(0)] = 18_750
    """Of the autoencoder, without the loss of consistency."""
    dynamics: Annotated[int, AtLeast(0)] = 9_375
    """Of the sequence model and the predictors, on latents of the autoencoder as it then is."""


@dataclass(frozen=True)
class TwmConfig(WorldConfig):
    """TWM's world model: autoencoder ("observation model") and Transformer-XL ("dynamics")."""

    kind: ClassVar[str] = "twm"

    image: StackedFramesConfig = StackedFramesConfig()
    """Image encoder and decoder."""
    latent: CategoricalConfig = CategoricalConfig(unimix=0.0)
    """Latent representation."""
    sequence: TransformerXLConfig = TransformerXLConfig()
    """Sequence model."""
    latent_head: PerceptronConfig = LATENT
    """Predictor of the next latent."""
    head: PerceptronConfig = OUTCOME
    """Reward and continuation predictors."""
    observation_optimizer: OptimizerConfig = OptimizerConfig(
        epsilon=1e-5, clip=100.0, weight_decay=1e-6
    )
    """Optimizer of encoder and decoder."""
    optimizer: OptimizerConfig = OptimizerConfig(epsilon=1e-5, clip=100.0, weight_decay=1e-6)
    """Optimizer of sequence model and predictors."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """Updates before the agent acts."""
    reconstruction_weight: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the reconstruction loss."""
    entropy_weight: Annotated[float, AtLeast(0)] = 5.0
    """Weight of what the posterior's entropy lacks to its floor."""
    entropy_floor: Annotated[float, Fraction] = 0.1
    """Share of the largest entropy above which the posterior is left alone."""
    consistency_weight: Annotated[float, AtLeast(0)] = 0.01
    """Weight of the loss that draws the posterior to what was predicted."""
    dynamics_weight: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the loss of the predicted latent."""
    reward_weight: Annotated[float, AtLeast(0)] = 10.0
    """Weight of the reward loss."""
    continuation_weight: Annotated[float, AtLeast(0)] = 50.0
    """Weight of the continuation loss."""
    reward_transform: Literal["tanh", "none"] = "tanh"
    """What is learned of a reward r: tanh(r) or r. Scores count r."""
    discount: Annotated[float, Positive] = 0.99
    """What the continuation predictor is to say of a step that the episode survives."""
    continuation_bias: float = 0.99
    """First bias of the continuation predictor, in logits: the released code sets the discount."""
    restart_below: Annotated[float, Fraction] = 0.1
    """A dream from posteriors whose product of predicted discounts falls below begins anew in a
    real state; 0 never."""
    batch_size: Annotated[int, Positive] = 100
    """Windows in one world-model batch (B)."""
    batch_length: Annotated[int, AtLeast(2)] = 16
    """Steps in one window that are learned from (T)."""

    @property
    def traits(self) -> Traits:
        """A row of the literature's table."""
        sequence = self.sequence
        return Traits(
            sequence_model=f"Transformer-XL, {sequence.layers} x {sequence.width}",
            tokens="latent, action, reward",
            latent=str(self.latent),
            historical_information=False,
        )

    def sized(self, size: SizeSettings) -> Self:
        """The same at a named size."""
        width, optimizer = size.width, replace(self.optimizer, learning_rate=size.world_rate)
        return replace(
            self,
            image=replace(
                self.image, channels=size.channels, head=replace(self.image.head, width=width)
            ),
            latent=replace(self.latent, categoricals=size.categoricals, classes=size.categoricals),
            sequence=replace(
                self.sequence, width=width, layers=2, head_width=width // 4, feedforward=2 * width
            ),
            latent_head=replace(self.latent_head, width=width, layers=2),
            head=replace(self.head, width=width, layers=2),
            observation_optimizer=optimizer,
            optimizer=optimizer,
            batch_size=size.windows,
            batch_length=min(size.window_length, self.sequence.memory),
            pretraining=PretrainingConfig(observation=200, dynamics=100),
        )

    @property
    def lead(self) -> int:
        """Steps of a window that are there for their frames alone."""
        return self.image.frames - 1

    @property
    def window(self) -> int:
        """Frames to stack, one step of context, those that are learned from, and the next one."""
        return self.lead + self.batch_length + 2

    def attention_scores(self, steps: int) -> int:
        """Each of three tokens a step looks at each, in every head of every layer."""
        return self.sequence.layers * self.sequence.heads * (3 * steps) ** 2


@dataclass(frozen=True)
class AdvantageConfig(Config):
    """TWM's agent: policy and value function, trained on generalised advantages (GAE)."""

    kind: ClassVar[str] = "advantage"

    head: PerceptronConfig = PerceptronConfig()
    """Networks of actor and critic."""
    optimizer: OptimizerConfig = OptimizerConfig(epsilon=1e-5, clip=1.0, weight_decay=1e-6)
    """Optimizer of the actor."""
    critic_optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-5, epsilon=1e-5, clip=1.0, weight_decay=1e-6
    )
    """Optimizer of the critic."""
    state: Literal["zh", "z", "h", "frame"] = "z"
    """What the agent sees; views of TWM's world model have the latent alone."""
    gamma: Annotated[float, Fraction] = 0.99
    """Discount per step."""
    lambda_: Annotated[float, Fraction] = 0.95
    """Mixing of the advantages."""
    entropy: Annotated[float, AtLeast(0)] = 0.01
    """Weight of what the policy's entropy lacks to its floor."""
    entropy_floor: Annotated[float, Fraction] = 0.1
    """Share of the largest entropy above which the policy is left alone."""
    pretraining: Annotated[int, AtLeast(0)] = 5_833
    """Updates before the agent acts: the critic learns of the warmup's real steps, the actor to be
    undecided. As released; a parenthesis there stands so that 0.7 of a budget are spent on them,
    where 0.1 are left (833)."""

    @property
    def training(self) -> str:
        """How it is trained, in a row of the literature's table."""
        return "REINFORCE, advantages as they are"

    def sized(self, size: SizeSettings) -> Self:
        """The same at a named size."""
        optimizer = replace(self.optimizer, learning_rate=size.agent_rate)
        return replace(
            self,
            head=replace(self.head, width=size.width, layers=2),
            optimizer=optimizer,
            critic_optimizer=replace(self.critic_optimizer, learning_rate=size.agent_rate),
            pretraining=50,
        )
