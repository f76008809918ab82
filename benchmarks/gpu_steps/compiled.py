"""Step 4: the compiled update: what the first call costs, the same numbers, in how much time."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

import torch

from gpu_steps.capture import after
from gpu_steps.capturing import captured_by_hand
from gpu_steps.setting import NEEDS_CUDA, Findings, Setting, difference, median_ms, subject
from stormrl.bench.timing import first_seconds
from stormrl.config.parts import AgentConfig


def findings(setting: Setting) -> Findings:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        yield from first_calls(setting.compiled())
        yield from numbers_and_times(setting)


def first_calls(setting: Setting) -> Findings:
    yield "first_call_without_cache_s", first_seconds(subject(setting).update, setting.device)
    torch.compiler.reset()
    yield "first_call_with_cache_s", first_seconds(subject(setting).update, setting.device)


def numbers_and_times(setting: Setting) -> Findings:
    # Compiled dropout draws other numbers than eager dropout does.
    config = without_dropout(setting.config)
    eager, compiled = subject(setting, config), subject(setting.compiled(), config)
    yield "against_eager", difference(after(eager.update, eager), after(compiled.update, compiled))
    yield "eager_wall_ms", median_ms(eager.update, setting)
    yield "wall_ms", median_ms(compiled.update, setting)
    if not setting.on_cuda:
        yield "captured_wall_ms", NEEDS_CUDA
        return
    update = captured_by_hand(compiled)
    yield "captured_wall_ms", median_ms(update, setting)
    yield "peak_memory_bytes", torch.cuda.max_memory_allocated(setting.device)


def without_dropout(config: AgentConfig) -> AgentConfig:
    sequence = replace(config.world_model.sequence, dropout=0.0, attention_dropout=0.0)
    return replace(config, world_model=replace(config.world_model, sequence=sequence))
