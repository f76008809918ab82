"""Parts that the configurations of several world models and agents are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from stormrl.config.constraints import AtLeast, Fraction, Positive
from stormrl.config.validation import Config


@dataclass(frozen=True)
class ConvConfig(Config):
    """Convolutional encoder and decoder for 64 x 64 images."""

    channels: Annotated[int, Positive] = 32
    """Channels of the first encoder stage; each of the three further stages doubles them."""


@dataclass(frozen=True)
class CategoricalConfig(Config):
    """A latent of several independent categorical variables."""

    kind: ClassVar[str] = "categorical"

    categoricals: Annotated[int, Positive] = 32
    """Number of categorical variables (K)."""
    classes: Annotated[int, Positive] = 32
    """Classes of each variable (C)."""
    unimix: Annotated[float, Fraction] = 0.01
    """Share of the uniform distribution mixed into posterior and prior."""

    @property
    def size(self) -> int:
        """Length Z of the flattened one-hot latent."""
        return self.categoricals * self.classes

    def __str__(self) -> str:
        return f"categorical, {self.categoricals} x {self.classes}"


@dataclass(frozen=True)
class HeadConfig(Config):
    """Multi-layer perceptron that reads a prediction from a state."""

    layers: Annotated[int, Positive] = 2
    """Hidden layers."""
    width: Annotated[int, Positive] = 512
    """Width of the hidden layers."""
    activation: Literal["relu", "silu"] = "relu"
    """What follows each hidden layer's normalisation."""
    epsilon: Annotated[float, Positive] = 1e-5
    """Added to the variance in each hidden layer's normalisation."""
    weights: Literal["uniform", "truncated_normal"] = "uniform"
    """Weights to begin with: PyTorch's own, or normal ones, truncated at two standard deviations
    and scaled by the mean of inputs and outputs, with biases of zero (DreamerV3)."""


@dataclass(frozen=True)
class TwoHotConfig(Config):
    """Uniform bins in symlog space for distributional regression."""

    bins: Annotated[int, AtLeast(2)] = 255
    """Number of bins."""
    low: float = -20.0
    """Lowest bin, in symlog units."""
    high: float = 20.0
    """Highest bin, in symlog units."""
    mean: Literal["symlog", "natural"] = "symlog"
    """Where the mean of the bins is taken: in symlog units, which crushes what is large and unsure,
    or in natural units (DreamerV3 of 2024)."""
    target: Literal["symlog", "natural"] = "symlog"
    """Where a number lies between its two bins: by its symlog, or by itself (DreamerV3 of 2024)."""
    start: Literal["random", "zero"] = "random"
    """Weights of the last layer to begin with; with zero the first predictions are all the same."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The lowest bin lies below the highest, and for a natural mean as far from 0."""
        if self.low >= self.high:
            yield "low", "must be below two_hot.high"
        if self.mean == "natural" and self.low != -self.high:
            remedy = f"a mean in natural units needs -two_hot.high ({-self.high})"
            yield "low", f"is {self.low}; {remedy}"


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """Adam with gradient clipping."""

    learning_rate: Annotated[float, AtLeast(0)] = 1e-4
    """Step size."""
    epsilon: Annotated[float, Positive] = 1e-8
    """Adam's epsilon."""
    clip: Annotated[float, Positive] = 1000.0
    """Largest global gradient norm."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """Share of each parameter that is added to its gradient (L2, as in `torch.optim.Adam`)."""


class SizeSettings(NamedTuple):
    """What a size decides: widths, batches, and the rates and exploration that go with them.

    Small batches and high rates let a policy lose its entropy before the
    world model can tell it anything, so the small sizes hold on to more of it.
    """

    channels: int
    categoricals: int
    width: int
    windows: int
    window_length: int
    rollouts: int
    context: int
    horizon: int
    acting: int
    """Steps that acting looks back on."""
    world_rate: float
    agent_rate: float
    entropy: float
    policy_unimix: float
    warmup: int
    ratio: float
    """Updates for each environment step."""


class Traits(NamedTuple):
    """A world model in the rows of the literature's table; None where a row means nothing."""

    sequence_model: str | None = None
    tokens: str | None = None
    """What a step of the environment is to the sequence model."""
    latent: str | None = None
    historical_information: bool | None = None
    """Whether the latent is drawn in view of what came before its observation."""


class WorldConfig(Config):
    """Base of the configuration of a world model, one's own included (docs/extending.md)."""

    batch_size: int
    """Windows in one world-model batch (B)."""
    batch_length: int
    """Steps in one window (T)."""
    optimizer: OptimizerConfig

    @property
    def traits(self) -> Traits:
        """What kind of world model this is, in words; a part of one's own may leave it out."""
        return Traits()

    def sized(self, size: SizeSettings) -> Self:
        """The same at a named size; a part of one's own may leave it out."""
        return self

    @property
    def window(self) -> int:
        """Successive steps of replay that one window is drawn as: at least `batch_length`."""
        return self.batch_length

    @property
    def positions(self) -> int | None:
        """Longest sequence that the model can see; None where there is no limit."""
        return None

    def attention_scores(self, steps: int) -> int:
        """Numbers by which a sequence of steps weighs itself; 0 where there is no attention."""
        return 0
