"""What rounding a trained agent's networks to bfloat16 changes, by what is rounded.

    python benchmarks/rounding.py RUN --steps 400

Plays whole episodes with the agent as it was saved, has every rounded copy look at the same
frames with the same random numbers, and prints one JSON object: mean KL of the copy's policy,
the largest change of an action's probability, mean KL of its posterior, and the root mean square
change of a reconstructed pixel (of 255).
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stormrl.acting.actor import Acting
from stormrl.agents.protocol import Opinion
from stormrl.envs import PROTOCOLS, make_env
from stormrl.learning.state import copy_tensors, module_tensors
from stormrl.runs.agent import Agent
from stormrl.runs.packing import round_networks
from stormrl.seeds import PROBE_SEED
from stormrl.types import View


class Moment(NamedTuple):
    image: Tensor
    carry: Acting
    is_first: Tensor
    seed: int


class Seen(NamedTuple):
    log_policy: Tensor
    log_posterior: Tensor
    pixels: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    rounded = {
        "everything": round_all(lambda name, tensor: True),
        "parameters": round_all(lambda name, tensor: "running_" not in name),
        "matrices and kernels, as packed": round_networks,
    }
    moments = list(played(Agent.load(options.run, device="cpu"), options.steps))
    exact = seen(Agent.load(options.run, device="cpu"), moments)
    changes = {}
    for name, edit in rounded.items():
        agent = Agent.load(options.run, device="cpu")
        edit(agent)
        changes[name] = change(exact, seen(agent, moments))
    print(json.dumps({"run": str(options.run), "frames": len(moments), "rounded": changes}))


def round_all(which: Callable[[str, Tensor], bool]) -> Callable[[Agent], None]:
    """Rounds all floating-point tensors of the networks for which `which` says so."""

    def edit(agent: Agent) -> None:
        for module in (agent.world_model, agent.actor_critic):
            tensors = module_tensors(module)
            chosen = {n: t for n, t in tensors.items() if t.is_floating_point() and which(n, t)}
            copy_tensors(chosen, {name: tensor.bfloat16() for name, tensor in chosen.items()})

    return edit


def played(agent: Agent, steps: int) -> Iterator[Moment]:
    """Image, what is taken along, and the seed of the draws of every step."""
    torch.manual_seed(PROBE_SEED)
    env = make_env(agent.config.env, PROTOCOLS[agent.config.protocol])
    carry, over, episode = agent.actor.begin(1), True, 0
    obs, _ = env.reset(seed=PROBE_SEED)
    for step in range(steps):
        if over:
            episode += 1
            obs, _ = env.reset(seed=PROBE_SEED + episode)
            carry = agent.actor.begin(1)
        moment = Moment(
            torch.from_numpy(obs).permute(2, 0, 1)[None], carry, torch.tensor([over]), step
        )
        yield moment
        _, opinion, carry = looked(agent, moment)
        action = opinion.probabilities.multinomial(1)[:, 0]
        carry = carry._replace(action=action)
        obs, _, terminated, truncated, _ = env.step(int(action))
        over = terminated or truncated


@torch.no_grad()
def seen(agent: Agent, moments: Sequence[Moment]) -> Seen:
    """What an agent makes of the frames: log-policy, posterior, reconstructions (of 255)."""
    agent.world_model.version = 1  # Whatever is remembered is encoded anew.
    found = []
    for moment in moments:
        view, opinion, _ = looked(agent, moment)
        assert view.belief is not None
        pictures = 255 * agent.world_model.decode(view)
        found.append(Seen(opinion.probabilities.log(), view.belief.log(), pictures))
    return Seen(*map(torch.cat, zip(*found, strict=True)))


def looked(agent: Agent, moment: Moment) -> tuple[View, Opinion, Acting]:
    draws = torch.Generator().manual_seed(PROBE_SEED + moment.seed)

    def uniform(shape: Sequence[int]) -> Tensor:
        return torch.rand(*shape, generator=draws)

    return agent.actor.look(moment.image, moment.carry, moment.is_first, uniform)


def change(exact: Seen, rounded: Seen) -> dict[str, float]:
    policy, posterior = (
        (p.exp() * (p - q)).sum(-1) for p, q in zip(exact[:2], rounded[:2], strict=True)
    )
    moved = (exact.log_policy.exp() - rounded.log_policy.exp()).abs()
    pixels = (exact.pixels - rounded.pixels).square().mean().sqrt()
    return {
        "policy_kl": policy.mean().item(),
        "largest_probability_change": moved.max().item(),
        "posterior_kl": posterior.sum(-1).mean().item(),
        "pixels_rms": pixels.item(),
    }


if __name__ == "__main__":
    main()
