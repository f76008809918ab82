import itertools
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faults import Crash, assert_tells_of_full_disk, crash, damages, failures, full_disk
from stormrl.disk import checkpoint
from stormrl.disk.files import Seal
from stormrl.errors import UserError

SHARED = torch.arange(12.0)
TENSORS = {
    "scalar": torch.tensor(3.5),
    "counter": torch.tensor(2**40),
    "empty": torch.zeros(0, 5),
    "bytes": torch.tensor([0, 255], dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
    "not finite": torch.tensor([float("nan"), float("inf")]),
    "whole": SHARED,
    "view": SHARED[2:8],
    "overlap": SHARED[4:10],
    "transposed": SHARED.view(3, 4).T,
    "channels last": torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "gradient": torch.nn.Parameter(torch.ones(2)),
}


def save(run: Path, step: int, version: int = 0) -> Path:
    """A small checkpoint whose whole content follows from step and version."""
    return checkpoint.save(run, step, {"a": {"x": torch.tensor([step, version])}}, {"v": version})


def version(loaded: checkpoint.Checkpoint) -> int:
    """The version that a checkpoint holds, in all its parts."""
    assert loaded.tensors["a"]["x"].tolist() == [loaded.step, loaded.state["v"]]
    return loaded.state["v"]


def leftovers(run: Path) -> list[str]:
    return [path.name for path in run.rglob(".*")]


def same_bits(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return a.detach().contiguous().numpy(force=True).tobytes() == b.numpy(force=True).tobytes()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints at 100 and 200."""
    save(tmp_path, 100)
    save(tmp_path, 200)
    return tmp_path


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = {
        "count": 2**60,
        "float": 0.1 + 0.2,
        "none": None,
        "nested": {"list": [1, True, "Pöng"]},
        "infinite": float("-inf"),
    }
    path = checkpoint.save(tmp_path, 7, {"a": TENSORS, "nothing": {}}, state)
    loaded = checkpoint.load(tmp_path)
    assert (loaded.step, loaded.path, loaded.warnings) == (7, path, ())
    assert loaded.state == state
    assert loaded.tensors.keys() == {"a", "nothing"}
    assert loaded.tensors["nothing"] == {}
    assert loaded.tensors["a"].keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        given = loaded.tensors["a"][name]
        if tensor.dtype == torch.bfloat16:
            tensor, given = tensor.view(torch.int16), given.view(torch.int16)
        assert same_bits(tensor, given), name


def test_layout_on_the_disk(run: Path) -> None:
    folder = run / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["000000100", "000000200", "latest"]
    assert (folder / "latest").read_text() == "000000200\n"
    assert sorted(path.name for path in (folder / "000000200").iterdir()) == [
        "a.safetensors",
        "checksums.json",
        "state.json",
    ]
    assert checkpoint.steps(run) == [100, 200]


def test_loaded_tensors_do_not_hang_on_the_files(run: Path) -> None:
    loaded = checkpoint.load(run)
    for path in loaded.path.iterdir():
        path.write_bytes(b"")
    shutil.rmtree(loaded.path)
    assert version(loaded) == 0
    loaded.tensors["a"]["x"].add_(1)


def test_an_explicit_step_is_loaded_or_the_others_are_listed(run: Path) -> None:
    assert checkpoint.load(run, 100).step == 100
    with pytest.raises(UserError, match=r"^step: .*150; at hand: 100, 200$"):
        checkpoint.load(run, 150)
    (run / "checkpoints/000000200/state.json").unlink()
    with pytest.raises(UserError, match=r"state\.json: is missing"):
        checkpoint.load(run, 200)


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    assert checkpoint.steps(tmp_path) == []
    assert checkpoint.states(tmp_path) == []
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(UserError, match=r"^run_dir: .* holds no checkpoint yet"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("name", ["a.safetensors", "state.json", "checksums.json"])
def test_damage_to_any_file_is_noticed_and_the_previous_checkpoint_used(
    run: Path, name: str
) -> None:
    newer, older = (run / "checkpoints" / step / name for step in ("000000200", "000000100"))
    for damage in damages(newer):
        loaded = checkpoint.load(run)
        assert (loaded.step, version(loaded)) == (100, 0), damage
        assert checkpoint.newest(run) == 100, damage
        (warning,) = loaded.warnings
        assert warning.startswith(f"checkpoint 200 is not used: {newer.parent}"), damage
    assert checkpoint.load(run).warnings == ()
    newer.unlink()
    for damage in damages(older):
        with pytest.raises(UserError, match="holds no usable checkpoint") as error:
            checkpoint.load(run)
        assert str(older.parent) in str(error.value), damage


def test_no_byte_of_a_checkpoint_can_change_unnoticed(run: Path) -> None:
    for path in sorted((run / "checkpoints/000000200").iterdir()):
        content = path.read_bytes()
        for index in range(len(content)):
            for mask in (0x01, 0x20):  # The second one changes letters between small and capital.
                flipped = bytearray(content)
                flipped[index] ^= mask
                path.write_bytes(flipped)
                assert checkpoint.load(run).step == 100, (path.name, index, mask)
        path.write_bytes(content)
    assert checkpoint.load(run).step == 200


def test_a_checkpoint_under_another_name_is_refused(run: Path) -> None:
    (run / "checkpoints/000000200").rename(run / "checkpoints/000000300")
    loaded = checkpoint.load(run)
    assert loaded.step == 100
    assert "is not the state of checkpoint 300" in loaded.warnings[-1]


def test_every_damage_to_latest_is_noticed(run: Path) -> None:
    latest = run / "checkpoints/latest"
    for damage in damages(latest):
        loaded = checkpoint.load(run)
        assert loaded.step == 200, damage
        assert "latest is missing or damaged" in loaded.warnings[0], damage
    latest.write_text("000000100\n")
    loaded = checkpoint.load(run)
    assert loaded.step == 100
    assert "checkpoint 200 is passed over" in loaded.warnings[0]


def test_beyond_latest_is_the_last_resort(run: Path) -> None:
    save(run, 50)
    assert checkpoint.load(run).step == 50
    (run / "checkpoints/000000050/state.json").unlink()
    assert checkpoint.load(run).step == 200


def test_a_checkpoint_may_be_refused_for_what_its_state_refers_to(run: Path) -> None:
    save(run, 300, version=1)

    def verify(state: dict[str, Any]) -> None:
        if state["v"] == 1:
            raise UserError("replay/0-9.safetensors", "is missing")

    loaded = checkpoint.load(run, verify=verify)
    assert loaded.step == 200
    assert loaded.warnings == ("checkpoint 300 is not used: replay/0-9.safetensors: is missing",)
    with pytest.raises(UserError, match="is missing"):
        checkpoint.load(run, 300, verify=verify)


def test_a_full_disk_leaves_the_previous_checkpoint(run: Path) -> None:
    latest, loaded = run / "checkpoints/latest", checkpoint.load(run)
    for raised in failures(full_disk, lambda: save(run, 300)):
        assert_tells_of_full_disk(raised)
        if raised is not None:
            assert str(raised).endswith(f"free space, then go on with stormrl train --resume {run}")
        loaded = checkpoint.load(run)
        # The last call of all comes after `latest` has moved to a checkpoint that is whole.
        assert loaded.step == int(latest.read_text())
        assert version(loaded) == 0
        assert leftovers(run) == []
        shutil.rmtree(run / "checkpoints/000000300", ignore_errors=True)
        latest.write_text("000000200\n")
    assert loaded.step == 300


@pytest.mark.parametrize("fault", [full_disk, crash])
@pytest.mark.parametrize("step", [300, 200], ids=["new", "replaced"])
def test_a_failure_at_any_moment_leaves_a_good_checkpoint(run: Path, step: int, fault: Any) -> None:
    versions = itertools.count(1)
    before = [(200, 0)]
    for _ in failures(fault, lambda: save(run, step, version=next(versions))):
        loaded = checkpoint.load(run)
        now = next(versions)
        assert (loaded.step, version(loaded)) in [*before, (step, now - 1)]
        assert checkpoint.newest(run) == loaded.step
        assert checkpoint.newest(run, checkpoint.verify_sizes) == loaded.step
        save(run, step, version=now)
        assert leftovers(run) == []
        loaded = checkpoint.load(run)
        assert (loaded.step, version(loaded)) == (step, now)
        before = [(step, now)]


def test_a_write_that_stops_half_way_leaves_the_previous_checkpoint(run: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tensors = {"a": {"x": torch.zeros(20_000)}, "b": {"x": torch.zeros(10)}}
    for limit in (0, 100, 4096, 70_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(UserError, match="File too large") as error:
                checkpoint.save(run, 300, tensors, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error.value.field == "run_dir"
        assert checkpoint.load(run).step == 200
        assert leftovers(run) == []


def test_prune_keeps_the_newest_and_drops_an_abandoned_future(run: Path) -> None:
    for step in (300, 400):
        save(run, step)
    checkpoint.prune(run, keep=3)
    assert checkpoint.steps(run) == [200, 300, 400]
    save(run, 250)
    checkpoint.prune(run, keep=2)
    assert checkpoint.steps(run) == [200, 250]
    assert leftovers(run) == []
    assert checkpoint.load(run).warnings == ()


def test_a_crash_while_pruning_loses_nothing_that_is_kept(run: Path) -> None:
    save(run, 300)
    for at in range(2):
        with pytest.raises(Crash), crash(at):
            checkpoint.prune(run, keep=1)
        assert checkpoint.load(run).step == 300
    checkpoint.prune(run, keep=1)
    save(run, 400)
    assert checkpoint.steps(run) == [300, 400]
    assert leftovers(run) == []


def test_states_are_those_of_the_checkpoints_at_hand(run: Path) -> None:
    save(run, 300, version=5)
    assert checkpoint.states(run) == [{"v": 0}, {"v": 0}, {"v": 5}]
    (run / "checkpoints/000000200/state.json").write_bytes(b"{}")
    assert checkpoint.states(run) == [{"v": 0}, {"v": 5}]


def test_nothing_outside_of_the_checkpoint_is_read(run: Path) -> None:
    folder = run / "checkpoints/000000200"
    (run / "x.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    listed = json.loads((folder / "checksums.json").read_text())
    listed["../../x.safetensors"] = listed.pop("a.safetensors")
    (folder / "checksums.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match="lists other files"):
        checkpoint.load(run, 200)
    with pytest.raises(ValueError, match="cannot be part of"):
        checkpoint.save(run, 300, {"../evil": {}}, {})
    assert checkpoint.steps(run) == [100, 200]


def test_a_file_that_is_not_listed_is_missed(run: Path) -> None:
    folder = run / "checkpoints/000000200"
    listed = json.loads((folder / "checksums.json").read_text())
    del listed["a.safetensors"]
    (folder / "checksums.json").write_text(json.dumps(listed))
    with pytest.raises(
        UserError, match=r"checksums\.json: is damaged: it does not list every file"
    ):
        checkpoint.load(run, 200)


@pytest.mark.parametrize("name", ["a.safetensors", "state.json", "checksums.json"])
def test_a_file_of_another_size_is_not_even_read(run: Path, name: str) -> None:
    os.truncate(run / "checkpoints/000000200" / name, 2**40)  # A hole: it takes no space.
    with pytest.raises(UserError, match=r"1099511627776 bytes instead of|far too large"):
        checkpoint.load(run, 200)


def test_a_checkpoint_beyond_the_limit_takes_no_memory(run: Path) -> None:
    folder = run / "checkpoints/000000200"
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != "checksums.json")
    assert checkpoint.load(run, 200, limit=size).step == 200
    with pytest.raises(UserError, match="is far too large to be a checkpoint of this run's model"):
        checkpoint.load(run, 200, limit=size - 1)
    listed = json.loads((folder / "checksums.json").read_text())
    listed["a.safetensors"]["bytes"] = 2**45
    (folder / "checksums.json").write_text(json.dumps(listed))
    os.truncate(folder / "a.safetensors", 2**40)
    with pytest.raises(UserError, match="far too large"):
        checkpoint.load(run, 200, limit=2**30)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(run: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    content = len(header).to_bytes(8, "little") + header.encode()
    replace_sealed(run / "checkpoints/000000200", "a.safetensors", content)
    with pytest.raises(UserError, match=r"a\.safetensors: is not a usable safetensors file"):
        checkpoint.load(run, 200)


def replace_sealed(folder: Path, name: str, content: bytes) -> None:
    """Put another content into a checkpoint, with the checksum that belongs to it."""
    (folder / name).write_bytes(content)
    listed = json.loads((folder / "checksums.json").read_text())
    listed[name] = Seal.of(content)._asdict()
    (folder / "checksums.json").write_text(json.dumps(listed))


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    ["step", "groups", "state", "a.safetensors", "state.json", "bytes", "sha256"]
)
JSON = st.recursive(
    ATOMS, lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner), max_leaves=8
)


@given(state=JSON, checksums=JSON)
def test_garbage_in_a_checkpoints_json_is_only_ever_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, state: object, checksums: object
) -> None:
    run = tmp_path_factory.mktemp("run")
    folder = save(run, 200)
    replace_sealed(folder, "state.json", json.dumps(state).encode())
    with pytest.raises(UserError):
        checkpoint.load(run)
    (folder / "checksums.json").write_text(json.dumps(checksums))
    with pytest.raises(UserError):
        checkpoint.load(run)
    assert checkpoint.states(run) == []


@given(content=st.binary(max_size=40) | st.just(b"[" * 100_000))
def test_garbage_instead_of_json_is_only_ever_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    run = tmp_path_factory.mktemp("run")
    replace_sealed(save(run, 200), "state.json", content)
    with pytest.raises(UserError):
        checkpoint.load(run)
