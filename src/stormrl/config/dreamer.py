"""Configuration of DreamerV3's world model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

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
from stormrl.config.constraints import AtLeast, Positive

HEAD = HeadConfig(activation="silu", epsilon=1e-3, weights="truncated_normal")
"""Hidden layers as DreamerV3 has them everywhere."""
BINS = TwoHotConfig(start="zero")


@dataclass(frozen=True)
class DreamerConfig(WorldConfig):
    """Recurrent state-space model (RSSM) of DreamerV3 (arXiv 2301.04104, first version), size S."""

    kind: ClassVar[str] = "dreamer"

    image: ConvConfig = ConvConfig()
    """Image encoder and decoder."""
    latent: CategoricalConfig = CategoricalConfig()
    """Latent representation."""
    width: Annotated[int, Positive] = 512
    """Width D of the recurrent state."""
    hidden: Annotated[int, Positive] = 512
    """Width of the layers before the recurrent cell and before posterior and prior."""
    head: HeadConfig = HEAD
    """Reward and continuation predictors; its normalisation and weights are those of all layers."""
    two_hot: TwoHotConfig = BINS
    """Bins of the reward predictor."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer of the world model."""
    dynamics_weight: Annotated[float, AtLeast(0)] = 0.5
    """Weight of the dynamics loss (beta dyn); 1 in DreamerV3 of 2024."""
    representation_weight: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the representation loss (beta rep)."""
    free_nats: Annotated[float, AtLeast(0)] = 1.0
    """KL of a step below which dynamics and representation losses exert no pull, in nats."""
    batch_size: Annotated[int, Positive] = 16
    """Windows in one batch (B)."""
    batch_length: Annotated[int, AtLeast(2)] = 64
    """Steps in one window (T)."""

    @property
    def traits(self) -> Traits:
        """A row of the literature's table."""
        return Traits(
            sequence_model=f"GRU of width {self.width}",
            tokens="latent with action",
            latent=str(self.latent),
            historical_information=True,
        )

    def sized(self, size: SizeSettings) -> Self:
        """The same at a named size."""
        return replace(
            self,
            image=ConvConfig(size.channels),
            latent=CategoricalConfig(size.categoricals, size.categoricals),
            width=2 * size.width,
            hidden=size.width,
            head=replace(self.head, width=size.width),
            optimizer=replace(self.optimizer, learning_rate=size.world_rate),
            batch_size=size.windows,
            batch_length=size.window_length,
        )

    @property
    def window(self) -> int:
        """One step more: what is received on arriving at a window's first step stands before it."""
        return self.batch_length + 1
