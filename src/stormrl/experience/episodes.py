"""Recorded episodes, and the file that keeps them: data alone (docs/episodes.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stormrl.disk import tensor_files
from stormrl.disk.files import parse_json, replace
from stormrl.disk.tensor_files import Layout
from stormrl.errors import UserError
from stormrl.spaces import ImageSpace, ObservationSpace, VectorSpace

FORMAT = 1
"""Version of the file; a change that older code cannot read raises it."""

HEADER = "stormrl_episodes"
"""Key of the JSON object among the metadata of the safetensors file."""

ENDS = ("terminated", "truncated")

CHECKED = ("action", "reward", "continues", "is_first")
"""Tensors whose values are looked at; every byte of a picture is one."""


class RecordedEpisode(NamedTuple):
    """One episode of `T` steps. `reward[t]` and `continues[t]` follow `action[t]` at `obs[t]`."""

    seed: int | None
    """Seed of the reset, where it is known."""
    obs: np.ndarray
    """uint8 [T + 1, height, width, channels] or float32 [T + 1, V]: the last row is what the last
    action led to."""
    action: np.ndarray
    """int64 [T]"""
    reward: np.ndarray
    """float32 [T]"""
    continues: np.ndarray
    """float32 [T]: 0 where the episode ended for the learner, 1 elsewhere."""
    end: Literal["terminated", "truncated"]
    """Whether the game was over or play was cut off."""

    @property
    def length(self) -> int:
        """Environment steps."""
        return len(self.action)

    @property
    def total(self) -> float:
        """Undiscounted return."""
        return float(self.reward.sum(dtype=np.float64))


@dataclass(frozen=True)
class Recording:
    """Whole episodes of one game, and who played them."""

    env: str
    """Gymnasium id."""
    protocol: str
    """Named rules of play."""
    policy: str
    """Who played: random, constant:UP, the directory of a run, ..."""
    actions: tuple[str, ...]
    """A word for each action."""
    episodes: tuple[RecordedEpisode, ...]

    @property
    def steps(self) -> int:
        """Environment steps of all episodes."""
        return sum(episode.length for episode in self.episodes)

    def rows(self) -> dict[str, Tensor]:
        """All steps in succession, as replay keeps them: field by field, [steps, ..]."""
        first = [np.arange(episode.length) == 0 for episode in self.episodes]
        return {
            "obs": _joined([episode.obs[:-1] for episode in self.episodes]),
            "action": _joined([episode.action for episode in self.episodes]),
            "reward": _joined([episode.reward for episode in self.episodes]),
            "continues": _joined([episode.continues for episode in self.episodes]),
            "is_first": _joined(first),
        }


def write_recording(path: str | Path, recording: Recording) -> None:
    """Write a file of episodes, as a whole or not at all. Raises OSError if it cannot be."""
    tensors = recording.rows()
    tensors["final_obs"] = _joined([episode.obs[-1:] for episode in recording.episodes])
    header = {
        "format": FORMAT,
        "env": recording.env,
        "protocol": recording.protocol,
        "policy": recording.policy,
        "actions": recording.actions,
        "episodes": [
            {"seed": episode.seed, "length": episode.length, "end": episode.end}
            for episode in recording.episodes
        ],
    }
    replace(Path(path), tensor_files.to_bytes(tensors, {HEADER: json.dumps(header)}))


class Contents(NamedTuple):
    """What a file of episodes holds, without the steps themselves."""

    env: str
    actions: tuple[str, ...]
    seen: ObservationSpace
    """Height, width and channels."""
    lengths: tuple[int, ...]
    """Steps of each episode."""

    @property
    def steps(self) -> int:
        """Of all episodes."""
        return sum(self.lengths)


def check_recording(path: str | Path) -> Contents:
    """Checks all that `read_recording` does, and takes no memory for pictures; raises alike."""
    path = Path(path)
    header = _header(path)
    seen = _check_layouts(path, header)
    _check_values(path, header, tensor_files.selected(path, CHECKED))
    lengths = tuple(span.length for span in header.episodes)
    return Contents(header.env, header.actions, seen, lengths)


def read_recording(path: str | Path) -> Recording:
    """The episodes in a file.

    Everything that the header says is checked before the content takes memory. Raises `UserError`
    that names the file and the field if anything is missing, odd, or contradicts the rest.
    """
    path = Path(path)
    header = _header(path)
    _check_layouts(path, header)
    tensors = tensor_files.selected(path, (*CHECKED, "obs", "final_obs"))
    _check_values(path, header, tensors)
    return _split(header, {name: tensor.numpy() for name, tensor in tensors.items()})


class _Span(NamedTuple):
    """What the header says of one episode."""

    seed: int | None
    length: int
    end: Literal["terminated", "truncated"]


class _Header(NamedTuple):
    env: str
    protocol: str
    policy: str
    actions: tuple[str, ...]
    episodes: tuple[_Span, ...]


def _header(path: Path) -> _Header:
    text = tensor_files.metadata(path).get(HEADER)
    if text is None:
        remedy = "give a file that stormrl record has written"
        raise UserError(str(path), f"is no file of episodes: it lacks {HEADER!r}; {remedy}")
    record = parse_json(text.encode(), path)
    _check_format(path, record.get("format"))
    for name in ("env", "protocol", "policy"):
        if not isinstance(record.get(name), str) or not record[name].isprintable():
            raise _odd(path, name, "is no printable text")
    return _Header(
        record["env"],
        record["protocol"],
        record["policy"],
        _actions(path, record.get("actions")),
        _spans(path, record.get("episodes")),
    )


def _check_format(path: Path, version: object) -> None:
    if type(version) is not int:
        raise _odd(path, "format", "is missing")
    if version > FORMAT:
        raise _odd(path, "format", f"is {version}, this stormrl reads up to {FORMAT}; upgrade it")
    if version < 1:
        raise _odd(path, "format", f"is {version}; it counts from 1")


def _actions(path: Path, words: object) -> tuple[str, ...]:
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return tuple(words)
    raise _odd(path, "actions", "is no list of words")


def _spans(path: Path, records: object) -> tuple[_Span, ...]:
    if isinstance(records, list) and records:
        return tuple(_span(path, index, record) for index, record in enumerate(records))
    raise _odd(path, "episodes", "is no list of episodes")


def _span(path: Path, index: int, record: Any) -> _Span:
    name = f"episodes[{index}]"
    if not isinstance(record, dict):
        raise _odd(path, name, "is no object")
    seed, length, end = (record.get(key) for key in _Span._fields)
    if seed is not None and (type(seed) is not int or seed < 0):
        raise _odd(path, f"{name}.seed", "is neither a whole number from 0 on nor null")
    if type(length) is not int or length < 1:
        raise _odd(path, f"{name}.length", "is no number of steps")
    if end not in ENDS:
        raise _odd(path, f"{name}.end", f"is none of {', '.join(ENDS)}")
    return _Span(seed, length, end)


def _check_layouts(path: Path, header: _Header) -> ObservationSpace:
    """What its steps show."""
    steps, episodes = sum(span.length for span in header.episodes), len(header.episodes)
    found = tensor_files.layouts(path)
    seen = _seen(found.get("obs"))
    if seen is None:
        raise _odd(path, "obs", "is missing or holds neither pictures nor numbers")
    kind = found["obs"].dtype
    expected = {
        "obs": Layout(kind, (steps, *seen.shape)),
        "action": Layout("I64", (steps,)),
        "reward": Layout("F32", (steps,)),
        "continues": Layout("F32", (steps,)),
        "is_first": Layout("BOOL", (steps,)),
        "final_obs": Layout(kind, (episodes, *seen.shape)),
    }
    for name in sorted(found.keys() - expected.keys()):
        raise _odd(path, name, "is unknown")
    for name, layout in expected.items():
        if name not in found:
            raise _odd(path, name, "is missing")
        if found[name] != layout:
            told = f"is {found[name].dtype} {list(found[name].shape)}"
            raise _odd(path, name, f"{told}, expected {layout.dtype} {list(layout.shape)}")
    return seen


def _seen(layout: Layout | None) -> ObservationSpace | None:
    if layout is not None and layout.dtype == "U8" and len(layout.shape) == 4:
        return ImageSpace(*layout.shape[1:])
    if layout is not None and layout.dtype == "F32" and len(layout.shape) == 2:
        return VectorSpace(*layout.shape[1:])
    return None


def _check_values(path: Path, header: _Header, tensors: dict[str, Tensor]) -> None:
    action, continues = tensors["action"], tensors["continues"]
    lengths = torch.tensor([span.length for span in header.episodes])
    ends = lengths.cumsum(0)
    is_first = torch.zeros(len(action), dtype=torch.bool)
    is_first[ends - lengths] = True
    terminated = torch.tensor([span.end == "terminated" for span in header.episodes])
    if action.min() < 0 or action.max() >= len(header.actions):
        raise _odd(path, "action", f"holds other numbers than 0 to {len(header.actions) - 1}")
    if not tensors["reward"].isfinite().all():
        raise _odd(path, "reward", "holds numbers that are not finite")
    if not ((continues == 0) | (continues == 1)).all():
        raise _odd(path, "continues", "holds other numbers than 0 and 1")
    if (continues[ends - 1][terminated] != 0).any():
        raise _odd(path, "continues", "is 1 at the end of a terminated episode")
    if not torch.equal(tensors["is_first"], is_first):
        raise _odd(path, "is_first", "does not mark the first step of each episode and no other")


def _split(header: _Header, rows: dict[str, np.ndarray]) -> Recording:
    episodes, start = [], 0
    for index, span in enumerate(header.episodes):
        steps = slice(start, start + span.length)
        obs = np.concatenate([rows["obs"][steps], rows["final_obs"][index : index + 1]])
        action, reward, continues = (
            rows[name][steps] for name in ("action", "reward", "continues")
        )
        episodes.append(RecordedEpisode(span.seed, obs, action, reward, continues, span.end))
        start += span.length
    return Recording(header.env, header.protocol, header.policy, header.actions, tuple(episodes))


def _joined(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


def _odd(path: Path, field: str, problem: str) -> UserError:
    return UserError(str(path), f"{field!r} {problem}")
