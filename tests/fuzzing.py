"""Random input of every kind that a user or a stranger can hand to stormrl, and what may follow.

Each `*_is_taken_or_refused` takes one example: it fails on any exception but a refusal that names
its field, on one line.
"""

import contextlib
import copy
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import strategies as st

from small_runs import go_on, new_run
from stormrl.cli import COMMANDS, main
from stormrl.commands.flags import flags
from stormrl.commands.train import NewRun, OldRun
from stormrl.config.json import config_from_dict
from stormrl.config.parts import RunConfig, to_dict
from stormrl.disk import checkpoint
from stormrl.disk.files import Seal
from stormrl.envs import Catch
from stormrl.errors import UserError
from stormrl.experience.episodes import (
    HEADER,
    RecordedEpisode,
    Recording,
    read_recording,
    write_recording,
)
from stormrl.machine import provenance
from stormrl.runs.trainer import Outcome, Trainer

NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**70, 10**400])
ATOMS = st.none() | st.booleans() | NUMBERS | st.text(max_size=6)
JUNK = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)

FLAGS = sorted({*flags(NewRun), *flags(OldRun), "episodes", "out", "policy", "step", "horizon"})
WORDS = [
    *("0", "-1", "1", "1e3", "nan", "inf", "-inf", "1.5", "9" * 30, "9" * 5000, "0x10", "many"),
    *("auto", "cpu", "cuda:7", "paper", "official", "tiny", "base", "bf16", "true", "None"),
    *("ALE/Pong-v5", "stormrl/Catch-v0", "CartPole-v1", "nowhere:Game-v0", ":", "a/b/c"),
    *("", " ", "-", "--", "-h", "--x=", "=", "\n", "é", "\udc80", "a\0b", "run", "file", "/proc/x"),
]
VALUES = st.sampled_from(WORDS) | st.text(max_size=5)
PAIRS = st.tuples(st.sampled_from(FLAGS).map("--{}".format), VALUES)
TOKENS = PAIRS | PAIRS.map("=".join).map(lambda token: (token,)) | VALUES.map(lambda v: (v,))
COMMAND_LINES = st.tuples(
    st.sampled_from([*COMMANDS, "train", "train", "train"]) | VALUES,
    st.sampled_from([(), ("--env", "stormrl/Catch-v0"), ("--resume", "run"), ("run",)]),
    st.lists(TOKENS, max_size=4),
).map(lambda parts: [parts[0], *parts[1], *(token for tokens in parts[2] for token in tokens)])

WORK = (
    "runs.whole._train",
    "runs.recording._play",
    "bench.apart.bench_apart",
    "runs.demo.demonstrate",
    "envs.check_env",
)
"""What takes long; a command line that gets there has been understood."""


class Understood(BaseException):
    """Raised in the place of work."""


@contextlib.contextmanager
def no_work() -> Iterator[None]:
    def understood(*args: object, **kwargs: object) -> None:
        raise Understood

    with pytest.MonkeyPatch.context() as patch:
        for name in WORK:
            patch.setattr(f"stormrl.{name}", understood)
        patch.setattr(provenance, "commit", lambda: None)  # It asks Git each time.
        yield


def command_line_is_taken_or_refused(argv: list[str], folder: Path) -> bool:
    """Run from `folder`; whether it was taken."""
    with no_work(), contextlib.chdir(folder):
        try:
            code, _, err = outcome(argv)
        except Understood:
            return True
    assert_told(code, err)
    return code == 0


def outcome(argv: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    return code, out.getvalue(), err.getvalue()


def assert_told(code: int, err: str) -> None:
    assert code in (0, 1, 2), code
    if code == 2:
        assert err.count("\n") == 1, err
        program, field, message = err.split(":", maxsplit=2)
        assert (program, bool(field.strip()), bool(message.strip())) == ("stormrl", True, True), err


def taken_or_refused(read: Callable[[Any], Any], what: Any) -> tuple[Any, UserError | None]:
    """What was read, or the refusal."""
    try:
        return read(what), None
    except UserError as refusal:
        named = refusal
    assert named.field
    assert named.message
    return None, named


PLAIN = to_dict(RunConfig(env="stormrl/Catch-v0"))


def places(record: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in nested JSON."""
    keys: Any = ()
    if isinstance(record, dict):
        keys = record
    elif isinstance(record, list):
        keys = range(len(record))
    return [way] * bool(way) + [place for k in keys for place in places(record[k], (*way, k))]


def edited(record: Any, way: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> Any:
    """A copy in which the value at the end of `way` is edited."""
    record = copy.deepcopy(record)
    inner = record
    for key in way[:-1]:
        inner = inner[key]
    edit(inner, way[-1])
    return record


@st.composite
def edits(draw: st.DrawFn, record: Any) -> Any:
    """JSON with one value replaced, removed, or something new beside it."""
    way, junk = draw(st.sampled_from(places(record))), draw(JUNK)
    change = draw(st.sampled_from(["replace", "remove", "add"]))
    if change == "remove":
        return edited(record, way, lambda inner, key: inner.__delitem__(key))
    if change == "add":
        name = draw(st.text(max_size=6))
        return edited(
            record,
            way,
            lambda inner, key: inner.update({name: junk}) if isinstance(inner, dict) else None,
        )
    return edited(record, way, lambda inner, key: inner.__setitem__(key, junk))


CONFIGS = edits(PLAIN) | edits(PLAIN).flatmap(lambda r: edits(r) if r else JUNK) | JUNK


def config_is_taken_or_refused(record: Any) -> bool:
    config, refusal = taken_or_refused(config_from_dict, record)
    if refusal is not None:
        assert str(refusal).isprintable()
        return False
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config
    return True


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with a stretch of them replaced by others."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 40)) | st.just(len(content)))
    return content[:start] + draw(st.binary(max_size=12)) + content[end:]


class Content(bytes):
    """A file's new content, shown in short."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes beginning with {bytes(self[:200])!r}"


class SampleRun:
    """A small run with a checkpoint, whose files can be damaged and put right again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new_run(path, steps=30, evaluation_episodes=1)
        go_on(path)
        torch.set_flush_denormal(False)  # A trainer sets it, and Hypothesis draws such numbers.
        self.latest = checkpoint.load(path).path
        everything = [each for each in path.rglob("*") if each.is_file()]
        self.files = {file: file.read_bytes() for file in everything}
        self.json = [f for f in self.files if f.suffix == ".json"]
        self.lines = [f for f in self.files if f.suffix == ".jsonl"]
        self.tensors = [f for f in self.files if f.parent == self.latest and "safe" in f.suffix]

    def mend(self) -> None:
        for file, content in self.files.items():
            if not file.is_file() or file.read_bytes() != content:
                file.write_bytes(content)

    def seal(self, file: Path) -> None:
        """Let the checksums agree with what is there: somebody damaged it on purpose."""
        if file.parent == self.latest and file.name != "checksums.json":
            sums = json.loads((self.latest / "checksums.json").read_bytes())
            sums[file.name] = Seal.of(file.read_bytes())._asdict()
            (self.latest / "checksums.json").write_text(json.dumps(sums))

    @st.composite
    @staticmethod
    def damages(draw: st.DrawFn, run: "SampleRun") -> tuple[Path, Content]:
        """A file and its new content."""
        kind = draw(st.sampled_from(["json", "json", "bytes", "lines", "tensors", "tensors"]))
        if kind == "json":
            file = draw(st.sampled_from(run.json))
            return file, Content(json.dumps(draw(edits(json.loads(run.files[file])))).encode())
        if kind == "tensors":
            file = draw(st.sampled_from(run.tensors))
            return file, Content(draw(other_tensors(run.files[file])))
        file = draw(st.sampled_from(run.lines if kind == "lines" else sorted(run.files)))
        if kind == "lines":
            lines = run.files[file].splitlines(keepends=True)
            junk = json.dumps(draw(JUNK)).encode() + b"\n"
            return file, Content(b"".join(draw(st.permutations([*lines, junk]))))
        return file, Content(draw(damaged(run.files[file])))

    def is_taken_or_refused(self, file: Path, content: bytes) -> bool:
        """Resume after the damage, up to the first step; whether it was possible."""
        self.mend()
        file.write_bytes(content)
        self.seal(file)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "train", lambda trainer: Outcome(trainer.step, True, ()))
            resume = ["train", "--resume", str(self.path), "--steps", "40", "--json"]
            try:
                code, _, err = outcome(resume)
            finally:
                torch.set_flush_denormal(False)
        assert_told(code, err)
        assert not {*self.path.rglob("*.py"), *self.path.parent.glob("*.json*")}
        return code == 0


@st.composite
def other_tensors(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file in which one tensor is of another kind, missing, or full of other bits."""
    tensors = safetensors.torch.load(content)
    name = draw(st.sampled_from(sorted(tensors) or ["x"]))
    tensor = tensors.get(name, torch.zeros(()))
    match draw(st.sampled_from(["remove", "add", "shape", "dtype", "numbers"])):
        case "remove":
            tensors.pop(name, None)
        case "add":
            tensors[draw(st.sampled_from(["x", "env.x", "memory.x", "agent.metric.x"]))] = tensor
        case "shape":
            tensors[name] = torch.zeros(draw(st.lists(st.integers(0, 3), max_size=3)))
            tensors[name] = tensors[name].to(tensor.dtype)
        case "dtype":
            dtypes = [torch.uint8, torch.int64, torch.float32, torch.bool, torch.bfloat16]
            tensors[name] = tensor.to(draw(st.sampled_from(dtypes)))
        case "numbers":
            raw = draw(st.binary(min_size=8, max_size=8)) * (tensor.nbytes // 8 + 1)
            array = torch.frombuffer(bytearray(raw), dtype=torch.uint8)[: tensor.nbytes]
            if tensor.dtype != torch.bool:
                tensors[name] = array.view(tensor.dtype).view(tensor.shape)
    return safetensors.torch.save({n: t.contiguous().clone() for n, t in tensors.items()})


class SampleRecording:
    """A file of two short episodes, and damaged ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shape, env = (64, 64, 3), Catch()
        episodes = tuple(
            RecordedEpisode(
                seed=seed,
                obs=torch.randint(256, (4, *shape), dtype=torch.uint8).numpy(),
                action=torch.randint(3, (3,)).numpy(),
                reward=torch.randn(3).numpy(),
                continues=torch.tensor([1.0, 1.0, 0.0]).numpy(),
                end="terminated",
            )
            for seed in range(2)
        )
        words = tuple(env.get_action_meanings())
        write_recording(path, Recording("stormrl/Catch-v0", "atari100k", "random", words, episodes))
        self.content = path.read_bytes()
        length = int.from_bytes(self.content[:8], "little")
        self.header, self.data = (
            json.loads(self.content[8 : 8 + length]),
            self.content[8 + length :],
        )

    @st.composite
    @staticmethod
    def damages(draw: st.DrawFn, sample: "SampleRecording") -> Content:
        """A file with another header, or with other bytes."""
        if draw(st.booleans()):
            return Content(draw(damaged(sample.content)))
        inner = json.loads(sample.header["__metadata__"][HEADER])
        header = copy.deepcopy(sample.header)
        if draw(st.booleans()):
            header["__metadata__"][HEADER] = json.dumps(draw(edits(inner)))
        else:
            header = draw(edits(header))
        encoded = json.dumps(header).encode()
        return Content(len(encoded).to_bytes(8, "little") + encoded + sample.data)

    def is_taken_or_refused(self, content: bytes) -> bool:
        self.path.write_bytes(content)
        recording, _ = taken_or_refused(read_recording, self.path)
        return recording is not None


def folder_of_mistakes(path: Path) -> Path:
    """A working directory with a file, and a foreign folder that is called like a run."""
    (path / "run").mkdir(parents=True)
    (path / "run" / "thesis.tex").touch()
    (path / "file").touch()
    os.environ.setdefault("COLUMNS", "80")
    return path
