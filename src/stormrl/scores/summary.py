"""Mean and standard error of evaluation episodes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from stormrl.acting.evaluate import Score
from stormrl.scores.published import human_normalised


def mean_and_stderr(returns: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, which is NaN for a single episode."""
    if len(returns) < 2:
        return statistics.fmean(returns), math.nan
    return statistics.fmean(returns), statistics.stdev(returns) / math.sqrt(len(returns))


def summary(env_id: str, protocol: str, step: int, scores: Sequence[Score]) -> dict[str, Any]:
    """The scores of one agent as a JSON-able record."""
    returns = [score.total for score in scores]
    mean, stderr = mean_and_stderr(returns)
    return {
        "env": env_id,
        "protocol": protocol,
        "step": step,
        "episodes": len(scores),
        "returns": returns,
        "lengths": [score.length for score in scores],
        "mean": mean,
        "stderr": stderr,
        "human_normalised": human_normalised(env_id, mean),
    }


def score_text(mean: float, stderr: float, decimals: int = 2) -> str:
    """As in `12.30 ± 0.45`."""
    error = "--" if math.isnan(stderr) else f"{stderr:.{decimals}f}"
    return f"{mean:.{decimals}f} ± {error}"
