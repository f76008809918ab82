"""How long each stage of an iteration takes, and how far that is from the device's limit."""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from stormrl.allocator import keep_freed_memory
from stormrl.collector import Collector
from stormrl.config import RunConfig
from stormrl.device import DTYPES, Backend, choose_backend
from stormrl.envs import PROTOCOLS, game_sizes, make_env
from stormrl.learner import Learner
from stormrl.parameters import count_parameters
from stormrl.replay import Replay
from stormrl.types import Cache

Work = Callable[[], object]


@dataclass(frozen=True)
class Peak:
    """What the device reaches at its best, measured in the same call as the stages."""

    matmul_flops_per_s: float
    """Square matrix product in the precision of the run."""
    copy_bytes_per_s: float
    """Copy of a large tensor, bytes read and written."""


@dataclass(frozen=True)
class Stage:
    """One stage of an iteration."""

    median_s: float
    p10_s: float
    p90_s: float
    flops: int
    """Floating-point operations of matrix products and convolutions."""
    floor_fraction: float | None
    """Share of the measured time that the arithmetic alone would take; none without arithmetic."""


def bench(config: RunConfig, repeats: int = 20) -> dict[str, Any]:
    """Time every stage of one iteration on random experience; JSON-able."""
    backend = choose_backend(config)
    keep_freed_memory()
    torch.set_flush_denormal(True)
    workbench = _Workbench(config, backend)
    started = time.perf_counter()
    workbench.iteration()
    _wait(backend)
    first_call_s = time.perf_counter() - started
    peak = measure_peak(backend)
    stages = {
        name: asdict(_measure(work, repeats, backend, peak))
        for name, work in workbench.stages().items()
    }
    return {
        "size": config.size,
        "env": config.env,
        "device": str(backend.device),
        "device_name": _device_name(backend.device),
        "dtype": next(name for name, dtype in DTYPES.items() if dtype == backend.dtype),
        "compile": backend.compiled,
        "threads": torch.get_num_threads(),
        "stages": stages,
        "peak": asdict(peak),
        "parameters": workbench.parameters(),
        "operators": count_operators(workbench.update),
        "first_call_s": first_call_s,
        "peak_memory_bytes": _peak_memory(backend.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


class _Workbench:
    """A learner, a replay of random play, and each stage as a function without arguments."""

    def __init__(self, config: RunConfig, backend: Backend) -> None:
        torch.manual_seed(config.seed)
        agent = config.agent
        protocol = PROTOCOLS[config.protocol]
        env = make_env(config.env, protocol)
        self.backend = backend
        actions, shape = game_sizes(env)
        self.learner = Learner(agent, actions, backend)
        self.replay = Replay(agent.replay.warmup + 4096, shape, backend.device)
        actor = self.learner.actor()
        self.collector = Collector(env, protocol, actor, self.replay, config.seed)
        for _ in range(agent.replay.warmup + 1):
            self.collector.step(random=True)
        self.batch = self.replay.sample(
            agent.world_model.batch_size, agent.world_model.batch_length
        )
        imagination = agent.imagination
        self.context = self.replay.sample(imagination.batch_size, imagination.context)
        self.noise = self.learner.imagination_noise(self.context)
        self.started = self._encode()
        with backend.autocast():
            self.trajectory = self.learner.imagination(self.context, self.noise)

    def stages(self) -> Mapping[str, Work]:
        learner = self.learner
        noise = learner.posterior_noise(self.batch)
        return {
            "world_model": lambda: learner.learn_world(self.batch, noise),
            "encode": self._encode,
            "rollout": self._rollout,
            "actor_critic": lambda: learner.learn_policy(self.trajectory),
            "act": self.collector.decide,
            "env": lambda: self.collector.step(random=True),
            "iteration": self.iteration,
        }

    def update(self) -> None:
        """One world-model update and one agent update."""
        self.learner.update_world_model(self.replay)
        self.learner.update_agent(self.replay)

    def iteration(self) -> None:
        """What training does for one environment step."""
        self.collector.step(random=False)
        self.update()

    def parameters(self) -> dict[str, int]:
        world = count_parameters(self.learner.world_model)
        agent = count_parameters(self.learner.actor_critic)
        wholes = {"world_model": world.pop("total"), "actor_critic": agent.pop("total")}
        return {**wholes, **world, **agent}

    @torch.no_grad()
    def _encode(self) -> tuple[torch.Tensor, torch.Tensor, Cache]:
        with self.backend.autocast():
            start = self.learner.imagination.start
            return start(self.context, self.noise.posterior, self.noise.prior[:, 0])

    @torch.no_grad()
    def _rollout(self) -> None:
        """The imagined steps alone, from states that were read before the clock started."""
        z, h, cache = self.started
        # The cache moves on in place; its old keys and values are overwritten where they matter.
        fresh = cache._replace(
            visible=cache.visible.clone(),
            position=cache.position.clone(),
            slot=cache.slot.clone(),
        )
        with self.backend.autocast():
            self.learner.imagination.roll_out(z, h, fresh, self.noise)


class _OperatorCounter(TorchDispatchMode):
    """Counts the operators that reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_operators(work: Work) -> int:
    """Operators that one call of `work` launches."""
    with _OperatorCounter() as counter:
        work()
    return counter.count


def count_flops(work: Work) -> int:
    """Floating-point operations of the matrix products and convolutions in one call of `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measure_peak(backend: Backend) -> Peak:
    """Matrix rate and copy bandwidth of the device, best of several tries."""
    side = 8192 if backend.device.type == "cuda" else 2048
    a = torch.randn(side, side, device=backend.device, dtype=backend.dtype)
    source = torch.empty(2**28, dtype=torch.uint8, device=backend.device)
    target = torch.empty_like(source)
    matmul_s = min(_times(lambda: a @ a, 7, backend))
    copy_s = min(_times(lambda: target.copy_(source), 7, backend))
    return Peak(2 * side**3 / matmul_s, 2 * source.numel() / copy_s)


def _measure(work: Work, repeats: int, backend: Backend, peak: Peak) -> Stage:
    flops = count_flops(work)
    times = _times(work, repeats, backend)
    deciles = statistics.quantiles(times, n=10)
    median = statistics.median(times)
    floor = flops / peak.matmul_flops_per_s
    return Stage(median, deciles[0], deciles[-1], flops, floor / median if flops else None)


def _times(work: Work, repeats: int, backend: Backend) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        _wait(backend)
        started = time.perf_counter()
        work()
        _wait(backend)
        times.append(time.perf_counter() - started)
    return times


def _wait(backend: Backend) -> None:
    if backend.device.type == "cuda":
        torch.cuda.synchronize(backend.device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
