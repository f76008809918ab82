import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stormrl.disk.jsonlines import JsonLines, is_number, keep_until, read_jsonlines, truncate
from stormrl.errors import UserError


def write_lines(path: Path, *records: dict[str, Any]) -> None:
    lines = JsonLines(path)
    for record in records:
        lines.write(record)
    lines.close()


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not strict JSON")


def test_lines_are_strict_json_of_plain_numbers(tmp_path: Path) -> None:
    record = {
        "step": np.int64(3),
        "loss": torch.tensor(0.123456789),
        "half": torch.tensor(0.5, dtype=torch.bfloat16),
        "rate": np.float32(1234567.0),
        "nan": math.nan,
        "inf": torch.tensor(-math.inf),
        "returns": np.array([1.0, math.nan]),
        "done": np.bool_(True),
        "seed": 2**53 + 1,
        "game": "Pöng",
    }
    write_lines(tmp_path / "a.jsonl", record)
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert json.loads(text, parse_constant=refuse) == {
        "step": 3,
        "loss": 0.123457,
        "half": 0.5,
        "rate": 1234570.0,
        "nan": None,
        "inf": None,
        "returns": [1.0, None],
        "done": True,
        "seed": 9007199254740993,
        "game": "Pöng",
    }


def test_a_line_is_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "a.jsonl")
    lines.write({"step": 1})
    assert read_jsonlines(tmp_path / "a.jsonl") == [{"step": 1}]
    lines.close()


def test_a_missing_file_is_an_empty_history(tmp_path: Path) -> None:
    assert read_jsonlines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "torn", [b'{"step": 2, "return": 1', b"{", b"\x00\x00", b'{"game": "P\xc3']
)
def test_a_torn_last_line_is_dropped_and_then_overwritten(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n' + torn)
    assert read_jsonlines(path) == [{"step": 1}]
    write_lines(path, {"step": 3})
    assert read_jsonlines(path) == [{"step": 1}, {"step": 3}]


def test_a_whole_last_line_without_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert read_jsonlines(path) == [{"step": 1}, {"step": 2}]
    write_lines(path, {"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@pytest.mark.parametrize("bad", ['{"step": 2', "[1, 2]", "", '{"loss": NaN}'])
def test_any_other_malformed_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"step": 1}}\n{bad}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: "):
        read_jsonlines(path)


def test_a_file_is_cut_back_to_a_position(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)
    lines.write({"step": 1})
    position = lines.position()
    lines.write({"step": 2})
    lines.close()
    assert position == len('{"step": 1}\n')
    truncate(path, position)
    write_lines(path, {"step": 2, "again": True})
    assert read_jsonlines(path) == [{"step": 1}, {"step": 2, "again": True}]


@pytest.mark.parametrize("position", [5, 13, 500])
def test_a_file_that_is_not_the_checkpoints_is_refused_and_left_alone(
    tmp_path: Path, position: int
) -> None:
    path = tmp_path / "a.jsonl"
    write_lines(path, {"step": 1}, {"step": 2})
    before = path.read_bytes()
    with pytest.raises(UserError, match="checkpoint"):
        truncate(path, position)
    assert path.read_bytes() == before


def test_a_lost_file_is_refused_unless_nothing_was_in_it(tmp_path: Path) -> None:
    truncate(tmp_path / "empty.jsonl", 0)
    assert read_jsonlines(tmp_path / "empty.jsonl") == []
    with pytest.raises(UserError, match=r"lost\.jsonl"):
        truncate(tmp_path / "lost.jsonl", 12)


def test_records_beyond_a_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_lines(path, *({"checkpoint_step": step, "game": "Pöng"} for step in (30, 10, 20)))
    keep_until(path, "checkpoint_step", 20)
    assert [record["checkpoint_step"] for record in read_jsonlines(path)] == [10, 20]
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("value", [0, -3, 2.5, 2**63])
def test_measurements_are_numbers(value: float) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [None, True, "1", [1], math.nan, math.inf, -1e30, 10**400])
def test_damage_is_no_number(value: object) -> None:
    assert not is_number(value)
