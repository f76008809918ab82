"""Step 1: what the device reaches at its best."""

from __future__ import annotations

import torch

from gpu_steps.setting import Findings, Setting
from stormrl.bench.peak import measure_peak


def findings(setting: Setting) -> Findings:
    if setting.on_cuda:
        properties = torch.cuda.get_device_properties(setting.device)
        yield "memory_bytes", properties.total_memory
        yield "multiprocessors", properties.multi_processor_count
        yield "cudnn", torch.backends.cudnn.version()
    peak = measure_peak(setting.backend)
    yield "matmul_flops_per_s", peak.matmul_flops_per_s
    yield "copy_bytes_per_s", peak.copy_bytes_per_s
    fp32 = setting.backend.__class__(setting.device)
    yield "matmul_fp32_flops_per_s", measure_peak(fp32).matmul_flops_per_s
