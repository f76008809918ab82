"""Put a finished run into the package as a pretrained agent.

    python benchmarks/pack_pretrained.py runs/roadrunner --name RoadRunner

Rounds the networks, plays 20 episodes with what was rounded and 20 at random, writes
src/stormrl/data/pretrained/<NAME>.safetensors and <NAME>.json, and prints what
`stormrl pretrained` will say of the agent.
"""

import argparse
import json
from pathlib import Path

from stormrl.commands.pretrained import describe
from stormrl.disk.jsonlines import plain
from stormrl.runs.packing import pack


def main() -> None:
    options = _options()
    agent = pack(
        options.run,
        options.name,
        options.step,
        options.episodes,
        options.protocol,
        options.device,
    )
    print(json.dumps(plain({"file": str(agent.path), **describe(agent)}), indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True, help="as in RoadRunner")
    parser.add_argument("--step", type=int, help="of the checkpoint; by default the newest")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--protocol", help="by default that of the training")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
