"""All that a report says, before it is laid out; and the same for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormrl.errors import UserError
from stormrl.report.doctor import History, diagnose
from stormrl.report.groups import GameRuns, grouped
from stormrl.report.reading import Run, Unreadable, read_runs
from stormrl.report.scores import GameRow, VariantStanding, game_rows, standings
from stormrl.scores.on_track import track_record
from stormrl.scores.statistics import Aggregate, Estimate


@dataclass(frozen=True)
class Overview:
    """Runs, their scores and where these stand."""

    runs: list[Run]
    unreadable: list[Unreadable]
    groups: list[GameRuns]
    rows: list[GameRow]
    standings: list[VariantStanding]

    @classmethod
    def of(cls, paths: Sequence[Path], allow_import: Sequence[str] = ()) -> Overview:
        """Read runs and compare their scores. Raises `UserError` if none of them can be read."""
        runs, unreadable = read_runs(paths, allow_import)
        if not runs:
            raise UserError("RUN", _nothing(unreadable))
        groups = grouped(runs)
        return cls(runs, unreadable, groups, game_rows(groups), standings(groups))

    @property
    def variants(self) -> list[str]:
        """Labels of what was run."""
        return list(dict.fromkeys(group.variant for group in self.groups))

    @property
    def games(self) -> list[str]:
        """Games that were played."""
        return list(dict.fromkeys(group.name for group in self.groups))

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `aggregate` is that of the variant with the most games."""
        largest = max(self.standings, key=lambda standing: len(standing.games), default=None)
        aggregates = {s.variant: _aggregate_record(s.rows[0].aggregate) for s in self.standings}
        return {
            "runs": len(self.runs),
            "games": [_game_record(row) for row in self.rows],
            "aggregate": None if largest is None else aggregates[largest.variant],
            "aggregates": aggregates,
            "improvement": {s.variant: _improvement_record(s) for s in self.standings},
            "problems": {run.name: list(run.problems) for run in self.runs if run.problems},
            "unreadable": {str(run.name): run.problem for run in self.unreadable},
        }


def causes(run: Run) -> list[str]:
    """What the doctor finds in a run."""
    returns = run.returns().values
    return [finding.cause for finding in diagnose(History(run.config, run.metrics, returns))]


def _nothing(unreadable: Sequence[Unreadable]) -> str:
    if not unreadable:
        return "is missing; give directories of runs"
    more = f"; {len(unreadable) - 1} more like it" if len(unreadable) > 1 else ""
    return f"none of them can be read: {unreadable[0].problem}{more}"


def _game_record(row: GameRow) -> dict[str, Any]:
    return {
        "game": row.game.name,
        "variant": row.game.variant,
        "runs": len(row.game.runs),
        "seeds": [run.config.seed for run in row.game.runs],
        "scores": row.game.scores,
        "mean": row.mean,
        "stderr": row.stderr,
        "human_normalised": row.human_normalised,
        "published": dict(row.published),
        "reproduction": None if row.comparison is None else row.comparison.as_dict(),
        "reservations": row.reservations,
        "on_track": [track_record(run.config, run.track) for run in row.game.runs],
    }


def _aggregate_record(aggregate: Aggregate) -> dict[str, dict[str, Any]]:
    return {name: _estimate_record(value) for name, value in aggregate._asdict().items()}


def _improvement_record(standing: VariantStanding) -> Mapping[str, dict[str, Any]]:
    return {
        row.name: _estimate_record(row.improvement)
        for row in standing.rows
        if row.improvement is not None
    }


def _estimate_record(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci95": [estimate.low, estimate.high]}
