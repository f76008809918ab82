"""Evaluation log: episodes of a run as its scores.jsonl keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stormrl.acting.evaluate import Score
from stormrl.disk.files import reason
from stormrl.disk.jsonlines import JsonLines, stream
from stormrl.disk.run_files import SCORES
from stormrl.errors import UserError
from stormrl.history.recorder import score_record


def write_scores(run: Path, step: int, protocol: str, scores: Sequence[Score]) -> None:
    """Append the episodes of one evaluation, and open nothing else of a run that may be training.

    Raises `UserError` if they cannot be written.
    """
    try:
        lines = JsonLines(run / SCORES)
        for index, (total, length, seed, cut_short) in enumerate(scores):
            lines.write(score_record(step, protocol, index, total, length, seed, cut_short))
        lines.close()
    except UserError as error:
        why = reason(error.__cause__) if isinstance(error.__cause__, OSError) else error.message
        raise UserError("run", f"{run / SCORES} cannot be written: {why}") from None


def read_scores(run: Path, step: int, protocol: str, seeds: Sequence[int]) -> list[Score] | None:
    """The episodes with these seeds, as the checkpoint at `step` played them; None if one lacks.

    Of an episode that was played more than once, the last time counts.
    """
    played = {}
    for _, line in stream(run / SCORES):
        match line:
            case {"checkpoint_step": at, "protocol": rules, "seed": int(seed),
                  "return": int(total) | float(total), "length": int(length)}:  # fmt: skip
                if (at, rules) == (step, protocol):
                    cut_short = line.get("cut_short") is True
                    played[seed] = Score(float(total), length, seed, cut_short)
    if any(seed not in played for seed in seeds):
        return None
    return [played[seed] for seed in seeds]
