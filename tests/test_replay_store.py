import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faults import assert_tells_of_full_disk, crash, damages, failures, full_disk
from stormrl.errors import UserError
from stormrl.experience import store
from stormrl.experience.replay import Replay, Transition
from stormrl.experience.store import FIELDS, ReplayStore

IMAGE = (2, 3, 3)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_STEPS", 4)


def new_replay(capacity: int = 10) -> Replay:
    return Replay(capacity, IMAGE)


def step(index: int, branch: int = 0) -> Transition:
    """The step of this number in a run's history, or in another history of the same run."""
    obs = np.full(IMAGE, (index + branch) % 256, np.uint8)
    obs[0, 0, 0] = index // 256
    return Transition(obs, index + branch, index / 7, index % 5 > 0, index % 3 == 0)


def play(replay: Replay, steps: int, branch: int = 0) -> None:
    for index in range(replay.added, replay.added + steps):
        replay.add(step(index, branch))


def assert_holds_history(replay: Replay, added: int) -> None:
    """By absolute number: step i lies in slot i % capacity, whoever put it there."""
    assert replay.added == added
    for index in range(max(0, added - replay.capacity), added):
        slot, expected = index % replay.capacity, step(index)
        assert torch.equal(replay.obs[slot], torch.from_numpy(expected.obs))
        assert replay.action[slot] == expected.action
        assert replay.reward[slot] == np.float32(expected.reward)
        assert replay.continues[slot] == expected.continues
        assert replay.is_first[slot] == expected.is_first


def saved(folder: Path, *lengths: int, capacity: int = 10) -> tuple[Replay, list[dict[str, Any]]]:
    """A replay saved after each of these stretches, and the manifests."""
    replay, store, manifests = new_replay(capacity), ReplayStore(folder), []
    for length in lengths:
        play(replay, length)
        manifests.append(json.loads(json.dumps(store.append_new(replay))))
    return replay, manifests


def restored(folder: Path, manifest: dict[str, Any], capacity: int = 10) -> Replay:
    replay = new_replay(capacity)
    ReplayStore(folder).restore(replay, manifest)
    return replay


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(
    lengths=st.lists(st.integers(0, 25), max_size=6),
    more=st.integers(0, 15),
    capacity=st.integers(1, 12),
)
def test_any_history_comes_back_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], more: int, capacity: int
) -> None:
    folder = tmp_path_factory.mktemp("run") / "replay"
    original, manifests = saved(folder, *lengths, capacity=capacity)
    if not manifests:
        return
    store, replay = ReplayStore(folder), new_replay(capacity)
    store.verify(manifests[-1], replay)
    store.restore(replay, manifests[-1])
    assert_holds_history(replay, sum(lengths))

    play(replay, more)
    assert_holds_history(restored(folder, store.append_new(replay), capacity), sum(lengths) + more)
    if len(original) > 0 and more == 0:
        whole = torch.tensor([0]), len(original)
        for given, expected in zip(replay.windows(*whole), original.windows(*whole), strict=True):
            assert torch.equal(given, expected)


def test_only_new_steps_are_written(tmp_path: Path) -> None:
    replay, store = new_replay(), ReplayStore(tmp_path)
    play(replay, 6)
    first = store.append_new(replay)
    assert [chunk["file"] for chunk in first["chunks"]] == [
        "000000000-000000003.safetensors",
        "000000004-000000005.safetensors",
    ]
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    play(replay, 3)
    second = store.append_new(replay)
    assert second["chunks"][:2] == first["chunks"]
    assert second["chunks"][2]["file"] == "000000006-000000008.safetensors"
    assert [(c["first"], c["count"]) for c in second["chunks"]] == [(0, 4), (4, 2), (6, 3)]
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert before.items() < after.items()
    assert store.append_new(replay) == second


def test_a_manifest_lists_only_what_the_ring_still_holds(tmp_path: Path) -> None:
    _, manifests = saved(tmp_path, 4, 6, 3, 1)
    # Ten steps are left: of thirteen 3 to 12, of fourteen 4 to 13.
    assert [chunk["first"] for chunk in manifests[2]["chunks"]] == [0, 4, 8, 10]
    assert [chunk["first"] for chunk in manifests[3]["chunks"]] == [4, 8, 10, 13]
    assert manifests[3]["added"] == 14


def test_steps_overwritten_between_two_saves_are_not_missed(tmp_path: Path) -> None:
    _, (_, last) = saved(tmp_path, 3, 31)
    assert [(c["first"], c["count"]) for c in last["chunks"]] == [(24, 4), (28, 4), (32, 2)]
    assert_holds_history(restored(tmp_path, last), 34)


def test_every_kept_manifest_stays_whole(tmp_path: Path) -> None:
    _, manifests = saved(tmp_path, 4, 6, 5, 7)
    (tmp_path / "notes.txt").write_text("mine")
    ReplayStore(tmp_path).prune(manifests[-2:])
    listed = {chunk["file"] for manifest in manifests[-2:] for chunk in manifest["chunks"]}
    assert file_names(tmp_path) == sorted([*listed, "notes.txt"])
    assert_holds_history(restored(tmp_path, manifests[2]), 15)
    assert_holds_history(restored(tmp_path, manifests[3]), 22)
    with pytest.raises(UserError, match=r"000000000-000000003\.safetensors: is missing"):
        ReplayStore(tmp_path).verify(manifests[0], new_replay())


def test_files_of_a_given_up_future_are_not_taken_for_valid(tmp_path: Path) -> None:
    _, (first, abandoned) = saved(tmp_path, 6, 5)
    store, replay = ReplayStore(tmp_path), new_replay()
    store.restore(replay, first)
    play(replay, 5, branch=100)
    other = store.append_new(replay)
    assert [c["file"] for c in other["chunks"]] == [c["file"] for c in abandoned["chunks"]]
    back = restored(tmp_path, other)
    assert back.action[7] == 107
    assert_holds_history(restored(tmp_path, first), 6)
    with pytest.raises(UserError, match="does not match its checksum"):
        ReplayStore(tmp_path).verify(abandoned, new_replay())


def test_damage_to_any_file_is_noticed_and_named(tmp_path: Path) -> None:
    _, (manifest,) = saved(tmp_path, 6)
    for path in sorted(tmp_path.iterdir()):
        for damage in damages(path):
            for check in (
                lambda: ReplayStore(tmp_path).verify(manifest, new_replay()),
                lambda: restored(tmp_path, manifest),
            ):
                with pytest.raises(UserError) as error:
                    check()
                assert error.value.field == str(path), damage
    assert_holds_history(restored(tmp_path, manifest), 6)


def test_no_byte_can_change_unnoticed(tmp_path: Path) -> None:
    _, (manifest,) = saved(tmp_path, 2)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        with pytest.raises(UserError):
            ReplayStore(tmp_path).verify(manifest, new_replay())
        with pytest.raises(UserError):
            restored(tmp_path, manifest)


@pytest.mark.parametrize("fault", [full_disk, crash])
def test_a_write_that_fails_leaves_earlier_manifests_whole(tmp_path: Path, fault: Any) -> None:
    replay, store = new_replay(), ReplayStore(tmp_path / "replay")
    manifest = store.append_new(replay)

    def attempt() -> None:
        play(replay, 6)
        store.append_new(replay)

    for raised in failures(fault, attempt):
        if fault is full_disk:
            assert_tells_of_full_disk(raised)
        added = manifest["added"]
        assert_holds_history(restored(store.folder, manifest), added)
        # The same store goes on when there is space again,
        assert_holds_history(restored(store.folder, store.append_new(replay)), added + 6)
        # and so does a new process from the last manifest.
        replay, store = new_replay(), ReplayStore(tmp_path / "replay")
        store.restore(replay, manifest)
        play(replay, 6)
        manifest = store.append_new(replay)
        assert_holds_history(restored(store.folder, manifest), added + 6)
        store.prune([manifest])
        leftovers = [path for path in store.folder.iterdir() if not path.name.startswith(".")]
        assert len(leftovers) == len(manifest["chunks"])


def test_another_capacity_is_refused_only_where_steps_are_missing(tmp_path: Path) -> None:
    _, (manifest,) = saved(tmp_path, 25)
    assert_holds_history(restored(tmp_path, manifest, capacity=7), 25)
    with pytest.raises(UserError, match=r"^replay\.capacity: is larger than what was saved"):
        restored(tmp_path, manifest, capacity=20)


def test_a_chunk_of_other_images_is_refused_before_it_is_read(tmp_path: Path) -> None:
    _, (manifest,) = saved(tmp_path, 6)
    replay = Replay(10, (4, 3, 3))
    with pytest.raises(UserError, match="does not hold steps of this run's kind"):
        ReplayStore(tmp_path).restore(replay, manifest)
    assert len(replay) == 0


def spoilt(**fields: Any) -> dict[str, Any]:
    chunk = {"file": "000000000-000000003.safetensors", "first": 0, "count": 4}
    return {"added": 4, "chunks": [{**chunk, "sha256": "0" * 64, "bytes": 10, **fields}]}


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        {},
        {"added": 3, "chunks": []},
        {"added": 0, "chunks": [None]},
        {"added": 5, "chunks": spoilt()["chunks"]},
        {"added": 8, "chunks": spoilt()["chunks"] * 2},
        spoilt(file="../000000000-000000003.safetensors"),
        spoilt(file="/etc/passwd"),
        spoilt(first=-1),
        spoilt(first="0"),
        spoilt(count=0),
        spoilt(count=-4),
        spoilt(sha256=None),
        spoilt(bytes="10"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, manifest: Any) -> None:
    with pytest.raises(UserError, match=r"^replay: .*list of replay files"):
        ReplayStore(tmp_path).verify(manifest, new_replay())
    with pytest.raises(UserError, match=r"^replay: .*list of replay files"):
        restored(tmp_path, manifest)


def test_an_empty_replay_has_an_empty_manifest(tmp_path: Path) -> None:
    _, (manifest,) = saved(tmp_path / "replay", 0)
    assert manifest == {"added": 0, "chunks": []}
    assert len(restored(tmp_path / "replay", manifest)) == 0


def test_every_field_of_a_step_is_stored() -> None:
    assert set(FIELDS) == set(Transition._fields)
