"""The file of episodes: what goes in comes out, and nothing odd gets through."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from stormrl.errors import UserError
from stormrl.experience.episodes import (
    HEADER,
    RecordedEpisode,
    Recording,
    read_recording,
    write_recording,
)

Header = dict[str, Any]
Tensors = dict[str, torch.Tensor]


def episode(length: int, seed: int | None, end: Any) -> RecordedEpisode:
    rng = np.random.default_rng(length)
    continues = np.ones(length, np.float32)
    continues[1] = 0  # a lost life
    continues[-1] = end == "truncated"
    return RecordedEpisode(
        seed,
        rng.integers(256, size=(length + 1, 8, 6, 3), dtype=np.uint8),
        rng.integers(3, size=length),
        rng.normal(size=length).astype(np.float32),
        continues,
        end,
    )


RECORDING = Recording(
    "ALE/Freeway-v5",
    "official",
    "constant:UP",
    ("NOOP", "UP", "DOWN"),
    (episode(5, 7, "terminated"), episode(3, None, "truncated")),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_recording(tmp_path / "demo.safetensors", RECORDING)
    return tmp_path / "demo.safetensors"


def test_what_was_written_is_read(path: Path) -> None:
    back = read_recording(path)
    for field in ("env", "protocol", "policy", "actions"):
        assert getattr(back, field) == getattr(RECORDING, field)
    assert len(back.episodes) == 2
    for ours, theirs in zip(back.episodes, RECORDING.episodes, strict=True):
        assert (ours.seed, ours.end) == (theirs.seed, theirs.end)
        for name in ("obs", "action", "reward", "continues"):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert mine.dtype == other.dtype
            assert np.array_equal(mine, other)


def test_rows_are_steps_in_succession() -> None:
    rows = RECORDING.rows()
    assert RECORDING.steps == 8
    assert rows["is_first"].tolist() == [True, *[False] * 4, True, *[False] * 2]
    assert rows["continues"].tolist() == [1, 0, 1, 1, 0, 1, 0, 1]
    first, second = RECORDING.episodes
    for t in range(5):
        assert np.array_equal(rows["obs"][t].numpy(), first.obs[t])
    assert np.array_equal(rows["obs"][5].numpy(), second.obs[0])
    assert rows["action"].tolist() == [*first.action, *second.action]


def test_the_file_is_plain_safetensors_with_json(path: Path) -> None:
    """Read as docs/episodes.md says, without this package."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["stormrl_episodes"])
    assert header["format"] == 1
    assert header["env"] == "ALE/Freeway-v5"
    assert header["episodes"] == [
        {"seed": 7, "length": 5, "end": "terminated"},
        {"seed": None, "length": 3, "end": "truncated"},
    ]
    tensors = load_file(path)
    assert tensors["obs"].shape == (8, 8, 6, 3)
    assert np.array_equal(tensors["final_obs"][0].numpy(), RECORDING.episodes[0].obs[5])


def rewritten(path: Path, edit: Callable[[Header, Tensors], Any]) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    tensors = load_file(path)
    edit(header, tensors)
    save_file(tensors, path, {HEADER: json.dumps(header)})


def setting(name: str, index: int, value: float) -> Callable[[Header, Tensors], None]:
    return lambda header, tensors: tensors[name].__setitem__(index, value)


ODDITIES: list[tuple[Callable[[Header, Tensors], Any], str]] = [
    (lambda h, t: h.pop("format"), "'format' is missing"),
    (lambda h, t: h.update(format=2), "'format' is 2, this stormrl reads up to 1"),
    (lambda h, t: h.update(format=0), "'format' is 0"),
    (lambda h, t: h.pop("env"), "'env' is no printable text"),
    (lambda h, t: h.update(policy="a\nb"), "'policy' is no printable text"),
    (lambda h, t: h.update(actions=[]), "'actions' is no list"),
    (lambda h, t: h.update(actions=[1, 2, 3]), "'actions' is no list"),
    (lambda h, t: h.update(actions=["NOOP"]), "'action' holds other numbers than 0 to 0"),
    (lambda h, t: h.update(episodes=[]), "'episodes' is no list"),
    (lambda h, t: h.update(episodes=[3]), "'episodes[0]' is no object"),
    (lambda h, t: h["episodes"][1].update(seed=-1), "'episodes[1].seed' is neither"),
    (lambda h, t: h["episodes"][1].update(length=0), "'episodes[1].length' is no number"),
    (lambda h, t: h["episodes"][1].update(length=4), "is U8 [8, 8, 6, 3], expected U8 [9,"),
    (lambda h, t: h["episodes"][0].update(end="lost"), "'episodes[0].end' is none of"),
    (lambda h, t: h["episodes"][1].update(end="terminated"), "'continues' is 1 at the end"),
    (lambda h, t: t.pop("obs"), "'obs' is missing"),
    (lambda h, t: t.update(obs=t["obs"][:, 0].clone()), "'obs' is missing or holds neither"),
    (lambda h, t: t.pop("reward"), "'reward' is missing"),
    (lambda h, t: t.update(more=torch.zeros(1)), "'more' is unknown"),
    (lambda h, t: t.update(reward=t["reward"].double()), "'reward' is F64 [8], expected F32 [8]"),
    (lambda h, t: t.update(final_obs=t["final_obs"][:1].clone()), "'final_obs' is U8 [1,"),
    (setting("action", 2, 3), "'action' holds other numbers than 0 to 2"),
    (setting("action", 2, -1), "'action' holds other numbers than 0 to 2"),
    (setting("reward", 2, float("nan")), "'reward' holds numbers that are not finite"),
    (setting("continues", 2, 0.5), "'continues' holds other numbers"),
    (setting("is_first", 2, True), "'is_first' does not mark"),
]


@pytest.mark.parametrize(("edit", "words"), ODDITIES, ids=[words for _, words in ODDITIES])
def test_an_odd_file_is_refused_by_file_and_field(
    path: Path, edit: Callable[[Header, Tensors], Any], words: str
) -> None:
    rewritten(path, edit)
    with pytest.raises(UserError) as caught:
        read_recording(path)
    assert caught.value.field == str(path)
    assert words in caught.value.message


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_cut_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="is not a usable safetensors file"):
        read_recording(path)


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(path: Path) -> None:
    content = path.read_bytes()
    promised = content.replace(b'"shape":[8,8,6,3]', b'"shape":[8,8,6,9]')
    assert promised != content
    path.write_bytes(promised)
    with pytest.raises(UserError, match="is not a usable safetensors file"):
        read_recording(path)


def test_layouts_are_checked_before_the_content_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten(path, lambda header, tensors: header["episodes"][0].update(length=10**12))

    def read(self: Path) -> bytes:
        raise AssertionError("the content was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(UserError, match=r"'obs' is U8 \[8, 8, 6, 3\], expected"):
        read_recording(path)


def test_other_safetensors_and_missing_files_are_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: is no file of episodes"):
        read_recording(tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors", {HEADER: "[1"})
    with pytest.raises(UserError, match=r"other\.safetensors: is damaged"):
        read_recording(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"none\.safetensors: is missing"):
        read_recording(tmp_path / "none.safetensors")
