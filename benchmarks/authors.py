"""One iteration at base size against the authors' released code, in turn, on the same CPU.

    git clone https://github.com/weipu-zhang/STORM authors
    pip install einops
    python benchmarks/authors.py --code authors --repeats 5

Their modules run as released, told at run time that "cuda" is this CPU; autocast is the CPU's own
bfloat16, as in ours. Both get the same number of frames: 16 windows of 64 steps for the world
model, 1,024 rollouts of 16 steps from contexts of 8, one update of actor and critic on them.
Prints one JSON object: seconds of each stage and how many times faster ours is, medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stormrl.config.presets import agent_config
from stormrl.experience.replay import Replay
from stormrl.learning.learner import Learner
from stormrl.machine.allocator import keep_freed_memory
from stormrl.machine.device import Backend
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces

ACTIONS = 6
SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(ACTIONS))
STAGES = ("world_model", "imagination", "actor_critic")
WARM_UP, TIMED = 2, 3
"""Iterations of a process. In the second one our memory still grows; from then on it is kept."""
Stages = dict[str, Callable[[], object]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--code", type=Path, required=True, help="clone of weipu-zhang/STORM")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return 0
    rounds = [{side: in_own_process(side) for side in SIDES} for _ in range(options.repeats)]
    facts = {"threads": options.threads, "precision": options.precision}
    print(json.dumps(summary(rounds) | facts))
    return 0


def in_own_process(side: str) -> dict[str, float]:
    """Each side with its own allocator and settings; taking turns, a busy machine troubles both."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each stage of one side once it is warm, and of the iteration."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    stages = SIDES[options.side](options.code, options.precision == "bf16")
    iterations = [
        {stage: seconds(stages[stage]) for stage in STAGES} for _ in range(WARM_UP + TIMED)
    ]
    timed = [times | {"iteration": sum(times.values())} for times in iterations[WARM_UP:]]
    return {name: statistics.median(times[name] for times in timed) for name in timed[0]}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ours(_: Path, lower: bool) -> Stages:
    keep_freed_memory()
    torch.set_flush_denormal(True)
    backend = Backend(torch.device("cpu"), torch.bfloat16 if lower else torch.float32)
    learner = Learner(agent_config("official", "base"), SPACES, backend)
    replay = random_replay()
    made: dict[str, Any] = {}

    def imagine() -> None:
        context = replay.sample(1024, 8)
        with backend.autocast():
            made["trajectory"] = learner.imagination(context, learner.imagination_noise(context))

    return {
        "world_model": lambda: learner.update_world_model(replay),
        "imagination": imagine,
        "actor_critic": lambda: learner.learn_policy(made["trajectory"]),
    }


def theirs(code: Path, lower: bool) -> Stages:
    run_on_cpu()
    sys.path.insert(0, str(code))
    import agents  # pyright: ignore[reportMissingImports]
    from sub_models import world_models  # pyright: ignore[reportMissingImports]

    world = world_models.WorldModel(3, ACTIONS, 64, 512, 2, 8)
    agent = agents.ActorCriticAgent(1024 + 512, 2, 512, ACTIONS, 0.985, 0.95, 3e-4)
    for part in (world, agent):
        part.use_amp = lower
        part.tensor_dtype = torch.bfloat16 if lower else torch.float32
    replay = random_replay()
    made: dict[str, Any] = {}

    def sample(windows: int, length: int) -> tuple[torch.Tensor, ...]:
        batch = replay.sample(windows, length)
        obs = batch.obs.contiguous().float() / 255
        return obs, batch.action.float(), batch.reward, 1 - batch.continues

    @torch.no_grad()
    def imagine() -> None:
        world.eval(), agent.eval()
        obs, action, _, _ = sample(1024, 8)
        made["rollout"] = world.imagine_data(agent, obs, action, 1024, 16, False, None)

    def learn() -> None:
        latent, action, reward, termination = made["rollout"]
        agent.update(latent, action, None, None, reward, termination)

    return {
        "world_model": lambda: world.update(*sample(16, 64)),
        "imagination": imagine,
        "actor_critic": learn,
    }


def run_on_cpu() -> None:
    """Lead what asks for CUDA to the CPU, and stand in for libraries that only log."""
    for name, members in {"tensorboardX": ["SummaryWriter"], "yacs": [], "yacs.config": []}.items():
        module = types.ModuleType(name)
        for member in [*members, "CfgNode"]:
            setattr(module, member, object)
        sys.modules.setdefault(name, module)
    # As CUDA's autocast has it, a softmax is computed in float32; the CPU's leaves it in bfloat16,
    # whose sum PyTorch's distributions do not take for one.
    softmax = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim, **k: softmax(x.float(), dim, **k)
    zeros, autocast = torch.zeros, torch.autocast
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.zeros = lambda *a, **k: zeros(*a, **k | ({"device": "cpu"} if "device" in k else {}))
    torch.autocast = lambda device_type, **k: autocast("cpu", **k)  # type: ignore[misc,assignment]


def random_replay() -> Replay:
    replay = Replay(4096, (64, 64, 3))
    replay.obs.random_(0, 256)
    replay.action.random_(0, ACTIONS)
    replay.reward.normal_()
    replay.moved_to(4096)
    return replay


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "low": min(values), "high": max(values)}

    stages = (*STAGES, "iteration")
    return {
        "seconds": {
            side: {stage: spread([r[side][stage] for r in rounds]) for stage in stages}
            for side in SIDES
        },
        "faster": {
            stage: spread([r["authors"][stage] / r["stormrl"][stage] for r in rounds])
            for stage in stages
        },
        "torch": torch.__version__,
    }


SIDES = {"authors": theirs, "stormrl": ours}


if __name__ == "__main__":
    sys.exit(main())
