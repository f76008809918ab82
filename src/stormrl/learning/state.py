"""A learner's whole state as named tensors, and back again in place.

Nothing is ever rebound: a captured graph goes on with the tensors that it was captured with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stormrl.disk.tensor_files import check_finite, check_tensors
from stormrl.learning.learner import Learner


def learner_tensors(learner: Learner) -> dict[str, dict[str, Tensor]]:
    """Every parameter, statistic and optimizer state by group and name; live, not copied."""
    world, agent = learner.world_model, learner.actor_critic
    return {
        "world_model": module_tensors(world),
        **{
            f"{name}_optimizer": optimizer_tensors(optimizer, world)
            for name, optimizer in learner.world_optimizers.items()
        },
        "actor_critic": module_tensors(agent),
        **{
            f"{name}_optimizer": optimizer_tensors(optimizer, agent)
            for name, optimizer in learner.agent_optimizers.items()
        },
    }


NETWORKS = ("world_model", "actor_critic")
"""Groups of tensors that playing takes."""


def restore_learner(learner: Learner, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put a learner of the same configuration into a saved state.

    Raises `UserError`, and changes nothing, if any tensor is missing, unknown, of another shape or
    dtype, or one of a network not finite. Groups that are no part of a learner are ignored.
    """
    _restore(learner_tensors(learner), tensors)


def restore_models(learner: Learner, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put only the networks into a saved state, to act and dream; raises as `restore_learner`."""
    live = {
        "world_model": module_tensors(learner.world_model),
        "actor_critic": module_tensors(learner.actor_critic),
    }
    _restore(live, tensors)


def _restore(
    live: Mapping[str, Mapping[str, Tensor]], saved: Mapping[str, Mapping[str, Tensor]]
) -> None:
    for group, members in live.items():
        check_tensors(members, saved.get(group, {}), group)
        if group in NETWORKS:
            check_finite(saved[group], group)
    for group, members in live.items():
        copy_tensors(members, saved[group])


def largest_state(learner: Learner) -> int:
    """Bytes that no checkpoint with a state of this learner comes near."""
    models = module_tensors(learner.world_model), module_tensors(learner.actor_critic)
    parameters = sum(tensor.nbytes for tensors in models for tensor in tensors.values())
    # Adam keeps two moments of each parameter; the rest is small beside them.
    return 4 * parameters + 64 * 2**20


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Live parameters and buffers of a module by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def optimizer_tensors(optimizer: torch.optim.Adam, module: nn.Module) -> dict[str, Tensor]:
    """Live moments, step counts and learning rate of an Adam that optimizes `module`."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    tensors = {}
    for index, group in enumerate(optimizer.param_groups):
        tensors[f"learning_rate.{index}"] = group["lr"]
        for parameter in group["params"]:
            state = _adam_state(optimizer, parameter)
            for key in ("step", "exp_avg", "exp_avg_sq"):
                tensors[f"{names[parameter]}.{key}"] = state[key]
    return tensors


@torch.no_grad()
def copy_tensors(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Write `saved` into `live`, whatever device either is on."""
    for name, tensor in live.items():
        tensor.copy_(saved[name])


def _adam_state(optimizer: torch.optim.Adam, parameter: Tensor) -> dict[str, Tensor]:
    """The state of one parameter; before the first step, the zeros that Adam would start from.

    A fused Adam counts its steps in float32 on the parameter's device.
    """
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state
