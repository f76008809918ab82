"""Puts what benchmarks/held_actions.py has found into the package.

python benchmarks/pack_held_actions.py results/atari/held_actions.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import run
from stormrl.disk.files import read_json

DATA = Path(__file__).parents[1] / "src" / "stormrl" / "data" / "held_actions.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts held actions into the package.")
    parser.add_argument("found", type=Path, help="what held_actions.py wrote")
    record = packed(read_json(parser.parse_args().found))
    DATA.write_text(to_json(record))
    print(f"{DATA}: {', '.join(record['games'])}")


def packed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The best held action of each game alone."""
    games = {game: best(found["held"]) for game, found in record["games"].items()}
    return {"protocol": record["protocol"], "games": games}


def best(held: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "action": held["action"],
        "share": held["share"],
        "mean": held["mean"],
        "stderr": held["stderr"],
        "episodes": len(held["returns"]),
        "returns": held["returns"],
    }


def to_json(record: Mapping[str, Any]) -> str:
    """A line for each game."""
    games = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in record["games"].items())
    lines = ",\n".join(games)
    return f'{{\n "protocol": {json.dumps(record["protocol"])},\n "games": {{\n{lines}\n }}\n}}\n'


if __name__ == "__main__":
    run(main)
