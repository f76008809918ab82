"""Scaling sweep: how the cost of an iteration grows with one dimension of the algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stormrl.config.common import HeadConfig
from stormrl.config.parts import AgentConfig, RunConfig, actor_critic, storm
from stormrl.errors import UserError

Scaled = Callable[[AgentConfig, float], AgentConfig]


class Dimension(NamedTuple):
    """One number of the algorithm that can be made smaller or larger."""

    label: str
    """What an axis says."""
    of: Callable[[AgentConfig], int]
    """Its value in a configuration."""
    scale: Scaled
    """The configuration with it multiplied, all else as it was; raises `UserError` if the product
    is no whole number or cannot be configured."""


def growth(
    dimension: str, configs: Sequence[RunConfig], records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What was measured, with the powers that fit it; JSON-able.

    Configurations that could not be measured are left out. Raises `UserError` if fewer than two
    are left.
    """
    pairs = zip(configs, records, strict=True)
    measured = [(config, record) for config, record in pairs if "error" not in record]
    if len(measured) < 2:
        errors = [record["error"] for record in records if "error" in record]
        raise UserError("grow", f"fewer than two values could be measured: {errors[0]}")
    values = [DIMENSIONS[dimension].of(config.agent) for config, _ in measured]
    good = [record for _, record in measured]
    return {
        "grow": dimension,
        "values": values,
        "exponents": exponents(values, good, "median_s"),
        "flops_exponents": exponents(values, good, "flops"),
        "benches": good,
        "failed": [record for record in records if "error" in record],
    }


def exponents(
    values: Sequence[int], records: Sequence[Mapping[str, Any]], key: str
) -> dict[str, float]:
    """For each stage the power of the dimension with which its `key` grows."""
    names = records[0]["stages"]
    costs = {name: [record["stages"][name][key] for record in records] for name in names}
    return {name: exponent(values, cost) for name, cost in costs.items() if all(cost)}


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the straight line through the logarithms, by least squares."""
    slope, _ = np.polyfit(np.log(values), np.log(costs), 1)
    return float(slope)


def _width(config: AgentConfig, factor: float) -> AgentConfig:
    """Every network's width; the latent and the number of heads stay."""
    world_model, agent = storm(config), actor_critic(config)
    sequence = world_model.sequence
    return replace(
        config,
        world_model=replace(
            world_model,
            image=replace(world_model.image, channels=_times(world_model.image.channels, factor)),
            sequence=replace(
                sequence,
                width=_times(sequence.width, factor),
                feedforward=_times(sequence.feedforward, factor),
            ),
            head=_wider(world_model.head, factor),
        ),
        actor_critic=replace(agent, head=_wider(agent.head, factor)),
    )


def _wider(head: HeadConfig, factor: float) -> HeadConfig:
    return replace(head, width=_times(head.width, factor))


def _batch(config: AgentConfig, factor: float) -> AgentConfig:
    """Windows in a world-model batch and imagined trajectories."""
    world_model, imagination = config.world_model, config.imagination
    return replace(
        config,
        world_model=replace(world_model, batch_size=_times(world_model.batch_size, factor)),
        imagination=replace(imagination, batch_size=_times(imagination.batch_size, factor)),
    )


def _layers(config: AgentConfig, factor: float) -> AgentConfig:
    sequence = storm(config).sequence
    sequence = replace(sequence, layers=_times(sequence.layers, factor))
    return replace(config, world_model=replace(config.world_model, sequence=sequence))


def _imagined(name: str) -> Scaled:
    def edit(config: AgentConfig, factor: float) -> AgentConfig:
        longer = _times(getattr(config.imagination, name), factor)
        dream = replace(config.imagination, **{name: longer})
        return replace(_with_positions(config, dream.context + dream.horizon), imagination=dream)

    return edit


def _with_positions(config: AgentConfig, length: int) -> AgentConfig:
    """The same with at least so many learned positions."""
    sequence = storm(config).sequence
    sequence = replace(sequence, max_length=max(sequence.max_length, length))
    return replace(config, world_model=replace(config.world_model, sequence=sequence))


def _times(number: int, factor: float) -> int:
    product = number * factor
    if product < 1 or product != int(product):
        remedy = "give factors that lead to whole numbers"
        raise UserError("factors", f"{number} x {factor:g} is {product:g}; {remedy}")
    return int(product)


DIMENSIONS = {
    "width": Dimension(
        "width of the Transformer; all networks grow with it",
        lambda config: config.world_model.sequence.width,
        _width,
    ),
    "batch": Dimension(
        "imagined trajectories; the world model's batch grows with them",
        lambda config: config.imagination.batch_size,
        _batch,
    ),
    "horizon": Dimension(
        "imagined steps", lambda config: config.imagination.horizon, _imagined("horizon")
    ),
    "layers": Dimension(
        "blocks of the Transformer", lambda config: config.world_model.sequence.layers, _layers
    ),
    "context": Dimension(
        "real steps before the imagined ones",
        lambda config: config.imagination.context,
        _imagined("context"),
    ),
}
"""What `stormrl bench --grow` can sweep."""
