"""Run directories that somebody made on purpose: what a command does that is handed one.

    python benchmarks/attack.py --trials 1000

Each trial copies a small run, changes it in a few ways (values in JSON, tensors, links, pipes,
sizes, names, all with checksums that fit) and hands it to a command in a process of its own, forked
from one that has imported everything. Counts tracebacks, hangs, memory beyond the same command's on
the run as it was, anything written outside, anything executed, control characters in what is said.
Prints one JSON object; each finding is shown on standard error, and the exit code is then 1.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import hostile  # pyright: ignore[reportMissingImports]
import small_runs  # pyright: ignore[reportMissingImports]
import systems  # pyright: ignore[reportMissingImports]

GIB = 2**30
STORM = "storm"
TRAINED_ON = small_runs.STEPS + 6
COMMANDS: dict[str, list[str]] = {
    "eval": ["eval", "{run}", "--episodes", "1"],
    "report": ["report", "{run}", "--out", "{out}/page.html"],
    "doctor": ["doctor", "{run}"],
    "dream": [
        "dream",
        "{run}",
        "--episodes",
        "1",
        "--error-episodes",
        "1",
        "--horizon",
        "4",
        "--out",
        "{out}/a.json",
    ],
    "train": ["train", "--resume", "{run}", "--steps", str(TRAINED_ON)],
    "play": ["play", "{run}", "--port", "0"],
}
WRITTEN = (
    ".lock",
    ".partial-config.json",
    ".partial-failure.txt",
    "failure.txt",
    "scores.jsonl",
    "tensorboard",
    "videos",
    "videos/a.mp4",
    "recordings",
    "replay",
    "replay/.partial-000000060-000000065.safetensors",
    "checkpoints",
    "checkpoints/000000066",
    "checkpoints/.partial-000000066",
    "checkpoints/.partial-latest",
    "diagnosis.jsonl",
    "demonstration.safetensors",
    "planted.py",
)
"""Names that a command would write to, some of them; what is there comes on top."""
PLANTED = "import pathlib\npathlib.Path({path!r}).write_text('executed')\n"
NAMES = ("run", "run", "run", f"run{hostile.ESCAPES}", os.fsdecode(b"run\xff\x1b[2J"))


class Place(NamedTuple):
    """Where a trial happens."""

    folder: Path
    run: Path

    @property
    def outside(self) -> Path:
        """What nobody may write to."""
        return self.folder / "outside"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """Negative: of the signal that ended it."""
    memory: int
    """Most bytes that it took."""
    killed: str
    """Why it was not left to end by itself."""
    said: str


Mutation = Callable[[random.Random, Place], str]


# What may be in a file.


def values(draw: random.Random) -> Any:
    """A value that a JSON file of ours would not hold."""
    nested: Any = 0
    for _ in range(draw.choice([3, 500])):
        nested = [nested] if draw.random() < 0.5 else {"a": nested}
    numbers = [-1, 0, 1, 2, 1000, 10**6, 10**9, 2**62, 2**63, 10**30, -(10**30), 1e308, 1e-308]
    odd = [float("nan"), float("inf"), None, True, "", [], {}, nested, [0] * 10**5, "x" * 10**6]
    words = [
        hostile.ESCAPES,
        "../../outside/file",
        "/dev/zero",
        "planted:Game-v0",
        "é" * 300,
        "[/b]",
    ]
    return draw.choice([*numbers, *odd, *words])


def places(record: Any) -> Iterator[tuple[Any, Any]]:
    """Every object or list of a JSON value with each key in it."""
    for key in record if isinstance(record, dict) else range(len(record)):
        yield record, key
        if isinstance(record[key], dict | list):
            yield from places(record[key])


def edited(draw: random.Random, record: Any) -> str:
    """One value of it is another one, is gone, or stands under another name."""
    part, key = draw.choice(list(places(record)))
    match draw.choice(["value", "value", "value", "gone", "renamed"]):
        case "gone":
            del part[key]
        case "renamed" if isinstance(part, dict):
            part[hostile.ESCAPES] = part.pop(key)
        case _:
            part[key] = values(draw)
            return f"{key} = {str(part[key])[:40]!a}"
    return f"{key} gone or renamed"


def change_config(draw: random.Random, place: Place) -> str:
    path = place.run / "config.json"
    record = json.loads(path.read_bytes())
    told = edited(draw, record["config"] if draw.random() < 0.8 else record)
    path.write_text(json.dumps(record))
    return f"config: {told}"


def change_size(draw: random.Random, place: Place) -> str:
    """One of the numbers of the algorithm is another one."""
    path = place.run / "config.json"
    record = json.loads(path.read_bytes())
    agent = record["config"]["agent"]
    part, key = draw.choice([at for at in places(agent) if type(at[0][at[1]]) in (int, float)])
    part[key] = draw.choice([0, 3, 100, 10**4, 10**6, 10**8, 10**12])
    path.write_text(json.dumps(record))
    return f"{key} = {part[key]}"


def change_state(draw: random.Random, place: Place) -> str:
    told: list[str] = []
    hostile.edit_state(place.run, lambda state: told.append(edited(draw, state)))
    return f"state: {told[0]}"


def change_seals(draw: random.Random, place: Place) -> str:
    path = hostile.newest(place.run) / "checksums.json"
    record = json.loads(path.read_bytes())
    told = edited(draw, record)
    path.write_text(json.dumps(record))
    return f"checksums: {told}"


def change_line(draw: random.Random, place: Place) -> str:
    path = draw.choice(sorted(place.run.glob("*.jsonl")))
    lines = path.read_text().splitlines() or ["{}"]
    record = json.loads(draw.choice(lines))
    told = edited(draw, record) if record else "nothing"
    lines.insert(draw.randrange(len(lines) + 1), json.dumps(record))
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"{path.name}: {told}"


def change_tensor(draw: random.Random, place: Place) -> str:
    groups = sorted(path.stem for path in hostile.newest(place.run).glob("*.safetensors"))
    group, told = draw.choice([*groups, "replay"]), []

    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = draw.choice(sorted(tensors) or ["x"])
        kind = draw.choice(["fill", "fill", "fill", "first", "gone", "added", "shape", "dtype"])
        told.append(f"{name} {kind}")
        spoil(draw, tensors, name, kind)

    if group == "replay":
        hostile.edit_replay(place.run, change)
    else:
        hostile.edit_tensors(place.run, group, change)
    return f"{group}: {told[0]}"


def spoil(draw: random.Random, tensors: dict[str, torch.Tensor], name: str, kind: str) -> None:
    tensor = tensors.get(name, torch.zeros(3))
    number = odd_number(draw, tensor)
    match kind:
        case "fill":
            tensors[name] = torch.full_like(tensor, number)
        case "first" if tensor.numel():
            tensor.view(-1)[0] = number
        case "gone":
            tensors.pop(name, None)
        case "added":
            tensors[draw.choice([hostile.ESCAPES, "env.x", "carry.x", "memory.x"])] = tensor.clone()
        case "shape":
            tensors[name] = torch.zeros(draw.choice([(), (0,), (7,), (2, 3)]), dtype=tensor.dtype)
        case "dtype":
            tensors[name] = tensor.to(draw.choice([torch.uint8, torch.float64, torch.bfloat16]))


def odd_number(draw: random.Random, tensor: torch.Tensor) -> float:
    """One that a tensor of ours would not hold, or only elsewhere."""
    if tensor.is_floating_point():
        return draw.choice([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 0.0])
    if tensor.dtype == torch.int64:
        return draw.choice([-1, 1, 3, 4, 5, 100, 2**40, 2**62, -(2**62)])
    return draw.choice([0, 1, 200])


def change_header(draw: random.Random, place: Place) -> str:
    path = draw.choice(sorted(hostile.newest(place.run).glob("*.safetensors")))
    shape = draw.choice([[2**60], [2**31, 2**31], [-1], [0], [1] * 1000])
    header = {hostile.ESCAPES: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    text = draw.choice([json.dumps(header).encode(), b"[" * 10**5, b"{" + b'"a":1,' * 10**5])
    length = draw.choice([len(text), 2**62, 2**24, 0])
    hostile.sealed(path, length.to_bytes(8, "little") + text + b"\0" * 4)
    return f"header of {path.name}: {length}"


def damage_bytes(draw: random.Random, place: Place) -> str:
    path = some_file(draw, place)
    content = bytearray(path.read_bytes())
    match draw.choice(["cut", "empty", "flipped", "noise"]):
        case "cut":
            content = content[: draw.randrange(len(content) + 1)]
        case "empty":
            content = bytearray()
        case "flipped" if content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case _:
            content = bytearray(draw.randbytes(draw.choice([10, 5000])))
    path.write_bytes(content)
    return f"bytes of {path.name}"


def make_huge(draw: random.Random, place: Place) -> str:
    """A hole, or lines that take many times as much memory as they have bytes."""
    path = some_file(draw, place)
    if draw.random() < 0.5:
        size = draw.choice([2**30, 2**33, 2**40])
        with path.open("r+b") as file:
            file.truncate(size)
        return f"{path.name}: a hole of {size}"
    path = draw.choice([*place.run.glob("*.jsonl"), place.run / "config.json"])
    line = draw.choice(
        [b'{"a":[' + b"[]," * 3000 + b"[]]}\n", b'{"step":1,"return":2}\n', b"[" * 10**5]
    )
    with path.open("ab") as file:
        for _ in range(draw.choice([8, 64, 256]) * 2**20 // (len(line) * 2**4)):
            file.write(line * 2**4)
    return f"{path.name}: {path.stat().st_size} bytes of lines"


# What may lie in a folder.


def some_file(draw: random.Random, place: Place) -> Path:
    return draw.choice([each for each in sorted(place.run.rglob("*")) if is_plain(each)])


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def some_name(draw: random.Random, place: Place) -> Path:
    """Of something that is there, or that a command would write."""
    there = [str(each.relative_to(place.run)) for each in sorted(place.run.rglob("*"))]
    return place.run / draw.choice([*WRITTEN, *there])


def make_room(path: Path) -> None:
    """Nothing has that name, but its folder is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def plant_link(draw: random.Random, place: Place) -> str:
    path = some_name(draw, place)
    make_room(path)
    within = [path, place.run, Path("..")]
    devices = [Path("/dev/zero"), Path("/dev/stdin"), Path("/proc/self/fd/0")]
    beside = [place.outside / name for name in ("file", "folder", "new")]
    target = draw.choice([*within, *devices, *beside])
    path.symlink_to(target)
    return f"{path.name} -> {target.name}"


def plant_second_name(draw: random.Random, place: Place) -> str:
    path = some_name(draw, place)
    make_room(path)
    path.hardlink_to(place.outside / "file")
    return f"{path.name} = file"


def plant_pipe(draw: random.Random, place: Place) -> str:
    path = some_name(draw, place)
    make_room(path)
    os.mkfifo(path)
    return f"{path.name} is a pipe"


def plant_folders(draw: random.Random, place: Place) -> str:
    path = some_name(draw, place)
    make_room(path)
    path.joinpath(*["d"] * draw.choice([1, 20, 300])).mkdir(parents=True)
    return f"{path.name} is a folder"


def plant_name(draw: random.Random, place: Place) -> str:
    folder = draw.choice([each for each in sorted(place.run.rglob("*")) if each.is_dir()])
    names = [hostile.ESCAPES, os.fsdecode(b"\xff\xfe"), "0" * 200, "9" * 18, "\n", "000000060 "]
    name = draw.choice(names) + draw.choice(["", ".json", ".mp4", ".safetensors"])
    if draw.random() < 0.5:
        (folder / name).write_text("{}")
    else:
        (folder / name).mkdir(exist_ok=True)
    return f"{folder.name} has {name[:30]!a}"


def plant_module(draw: random.Random, place: Place) -> str:
    source = PLANTED.format(path=str(place.outside / "executed"))
    for folder in (place.run, place.folder):
        (folder / "planted.py").write_text(source)
    names = ["planted:Game-v0", "planted:World", "./planted:Game-v0", "..planted:Game-v0"]
    name = draw.choice(names)
    field = draw.choice(["env", "agent.world_model.kind", "agent.actor_critic.kind"])
    hostile.edit_config(place.run, field, name)
    return f"{field} = {name}"


MUTATIONS: list[Mutation] = [
    change_config, change_config, change_size, change_state, change_seals, change_line,
    change_tensor, change_tensor, change_header, plant_module, damage_bytes, make_huge, plant_name,
    plant_second_name, plant_folders, plant_link, plant_link, plant_pipe,
]  # fmt: skip
"""In an order in which none waits for, or takes the memory of, what those before it planted."""


# A command in a process of its own.


def warm() -> None:
    """All that the commands import, once."""
    import torch._dynamo
    import torch.utils.tensorboard

    import stormrl.commands.doctor
    import stormrl.commands.dream
    import stormrl.commands.eval
    import stormrl.commands.play
    import stormrl.commands.report
    import stormrl.commands.train
    import stormrl.pictures.figures
    import stormrl.play.server
    import stormrl.report.overview
    import stormrl.report.page
    import stormrl.runs.film  # noqa: F401

    torch.set_num_threads(1)


def forked(work: Callable[[], int]) -> int:
    """The process that does it."""
    process = os.fork()
    if process == 0:
        code = 70
        try:
            code = work()
        except SystemExit as done:
            code = int(done.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return process


def told(argv: list[str], place: Place, limit_s: float) -> int:
    """The command, with what it says in a file and nothing to read.

    Half way to the limit it is asked to stop: it may have been told to train for ever.
    """
    from stormrl import cli
    from stormrl.commands import play

    said = os.open(place.folder / "said", os.O_WRONLY | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, stream in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(descriptor, stream)
    os.chdir(place.folder)
    play.web_server = lambda app: Opened()  # pyright: ignore
    if argv[0] == "train":
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        signal.setitimer(signal.ITIMER_PROF, limit_s / 2)
    return cli.main(argv)


class Opened:
    """A server of a page that is closed as soon as it is open."""

    def run(self, sockets: list[Any]) -> None:
        """Serve nothing."""


def ended(argv: list[str], place: Place, limit_s: float, most: int) -> Ended:
    """Run a command, at most so many seconds of a processor and so many bytes."""
    process, began, killed = forked(lambda: told(argv, place, limit_s)), time.monotonic(), ""
    while not (reaped := os.wait4(process, os.WNOHANG))[0]:
        busy, memory = use(process)
        if busy > limit_s or time.monotonic() - began > 4 * limit_s or memory > most:
            killed = killed or ("memory" if memory > most else "hang")
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    _, status, used = reaped
    said = (place.folder / "said").read_bytes().decode(errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024, killed, said)


def use(process: int) -> tuple[float, int]:
    """Seconds of a processor and bytes that a process has taken."""
    try:
        found = psutil.Process(process)
        times = found.cpu_times()
        return times.user + times.system, found.memory_info().rss
    except psutil.Error:  # It has just ended.
        return 0.0, 0


# Trials.


def place_of(folder: Path, base: Path, name: str) -> Place:
    """A fresh copy of the run, beside something that is not to be touched."""
    shutil.rmtree(folder, ignore_errors=True)
    place = Place(folder, folder / name)
    shutil.copytree(base, place.run)
    (place.outside / "folder").mkdir(parents=True)
    (place.outside / "file").write_text(hostile.SECRET)
    (folder / "out").mkdir()
    return place


def argv_of(command: str, place: Place, as_json: bool) -> list[str]:
    names = {"run": str(place.run), "out": str(place.folder / "out")}
    words = [word.format(**names) for word in COMMANDS[command]]
    return [*words, "--json"] if as_json else words


def attacked(
    number: int, seed: int, base: Path, folder: Path, limit_s: float, usual: dict[str, int]
) -> tuple[str, list[str], Ended]:
    """One trial: what was done, what was found, how it ended."""
    draw = random.Random(f"{seed}:{number}")
    place = place_of(folder, base, draw.choice(NAMES))
    done = mutated(draw, place)
    command = draw.choice([*COMMANDS])
    argv = argv_of(command, place, draw.random() < 0.5)
    before = hostile.tree(place.outside)
    end = ended(argv, place, limit_s, usual[command] + GIB)
    found = findings(end, command, usual[command])
    after = hostile.tree(place.outside)
    if "executed" in after:
        found.append("executed")
    if after != before or beside(place):
        found.append("written outside")
    return f"{number}: {' '.join(argv)!a} after {'; '.join(done)}", found, end


def mutated(draw: random.Random, place: Place) -> list[str]:
    """Change the run in a few ways, in the order of the list: what was changed."""
    chosen = sorted(draw.sample(range(len(MUTATIONS)), draw.choice([1, 1, 2, 3])))
    done = []
    for index in chosen:
        with suppress(Exception):  # The one before may have taken away what it changes.
            done.append(MUTATIONS[index](draw, place))
    return done


def beside(place: Place) -> set[str]:
    """What lies in the trial's folder and should not."""
    names = {path.name for path in place.folder.iterdir()}
    return names - {place.run.name, "outside", "out", "said", "planted.py"}


def findings(end: Ended, command: str, usual: int) -> list[str]:
    """What is wrong with how a command ended."""
    allowed = {0, 2, 3} if command == "train" else {0, 2}
    found = [end.killed] if end.killed else []
    if "Traceback (most recent call last)" in end.said:
        found.append("traceback")
    elif not end.killed and end.code not in allowed:
        found.append(f"exit code {end.code}")
    if end.memory > usual + GIB and end.killed != "memory":
        found.append("memory")
    if hostile.controls(end.said):
        found.append("control characters")
    return found


def make_base(path: Path, system: str) -> None:
    """A run that has finished, trained in a process of its own."""
    algorithm = {"agent": systems.SYSTEMS[system]()} if system != STORM else {}
    config = small_runs.small_config(evaluation_episodes=1, **algorithm)

    from stormrl.runs import whole

    def train() -> int:
        whole.train(config, path)
        return 0

    _, status = os.waitpid(forked(train), 0)
    if status:
        raise SystemExit("the run to attack could not be made")


def usual_memory(base: Path, folder: Path) -> dict[str, int]:
    """Bytes that each command takes for the run as it is."""
    usual = {}
    for command in COMMANDS:
        place = place_of(folder, base, "run")
        end = ended(argv_of(command, place, True), place, 120.0, 64 * GIB)
        if end.code:
            raise SystemExit(f"{command} does not work at all:\n{end.said}")
        usual[command] = end.memory
    return usual


def main() -> int:
    """Attack so often; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--system", default=STORM, choices=[STORM, *systems.SYSTEMS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds of a processor")
    options = parser.parse_args()
    warm()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        base, folder = Path(temporary) / "base", Path(temporary) / "trial"
        make_base(base, options.system)
        usual = usual_memory(base, folder)
        for number in range(options.first, options.first + options.trials):
            what, found, end = attacked(number, options.seed, base, folder, options.limit, usual)
            counts.update(found or ["done" if end.code == 0 else "refused or stopped"])
            if found:
                counts["found"] += 1
                print(f"{', '.join(found)}: {what}\n{end.said[-2000:]}", file=sys.stderr)
    print(
        json.dumps(
            {"trials": options.trials, "seed": options.seed, "system": options.system, **counts}
        )
    )
    return 1 if counts["found"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
