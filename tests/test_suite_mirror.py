"""A run in a store and on a machine: whatever goes wrong on the way, the store's can go on."""

import shutil
from pathlib import Path

import pytest

from small_runs import assert_same_runs, before_step, go_on, new_run, opened
from stormrl.disk import checkpoint
from stormrl.errors import UserError
from stormrl.experience.replay import Replay
from stormrl.experience.store import ReplayStore
from stormrl.suite.mirror import Mirror
from stormrl.suite.standing import read_standing
from stormrl.suite.storage import Storage


class Broken(Exception):
    """The machine is gone."""


@pytest.fixture(params=["memory://suite", "file://{tmp_path}/store"])
def storage(request, tmp_path):
    made = Storage(request.param.format(tmp_path=tmp_path))
    yield made
    if made.fs.exists(made.root):
        made.fs.rm(made.root, recursive=True)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def train_mirrored(path: Path, mirror: Mirror, stop_before: int | None = None) -> None:
    """Go on with a run, copied after every checkpoint; its machine may be gone at some step."""
    trainer = opened(path)
    trainer.saved = mirror.push

    def break_down() -> None:
        raise Broken

    if stop_before is not None:
        before_step(trainer, stop_before, break_down)
    trainer.train()


def test_what_is_fetched_is_what_was_pushed(storage, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    new_run(here, steps=30, log_every=5)
    go_on(here)
    Mirror(storage, "run", here).push()
    there.mkdir()
    (there / "of-another-time").write_text("old")
    Mirror(storage, "run", there).fetch()
    assert files(there) == files(here)
    assert_same_runs(there, here)
    assert read_standing(storage, "run").saved == 30


def test_a_run_that_moves_between_machines_is_the_run_that_stayed(storage, tmp_path):
    whole = tmp_path / "whole"
    new_run(whole)
    go_on(whole)
    first, second = tmp_path / "first", tmp_path / "second"
    new_run(first)
    with pytest.raises(Broken):
        train_mirrored(first, Mirror(storage, "run", first), stop_before=41)
    mirror = Mirror(storage, "run", second)
    mirror.fetch()
    assert checkpoint.steps(second) == [25, 40]  # What fails is saved first.
    train_mirrored(second, mirror)
    assert_same_runs(second, whole)
    third = tmp_path / "third"
    Mirror(storage, "run", third).fetch()
    assert_same_runs(third, whole)


def test_nothing_is_copied_twice_and_what_is_gone_goes(storage, tmp_path, monkeypatch):
    new_run(tmp_path / "run", checkpoint_every=10)
    mirror = Mirror(storage, "run", tmp_path / "run")
    train_mirrored(tmp_path / "run", mirror)
    mirror.push()  # TensorBoard has written its last lines since.
    put: list[str] = []
    monkeypatch.setattr(mirror, "_put", put.append)
    mirror.push()
    assert put == []
    assert storage.names("run", "checkpoints") == ["000000050", "000000060", "latest"]


def test_wherever_copying_breaks_off_the_store_holds_a_run_to_go_on_from(tmp_path, monkeypatch):
    """The second checkpoint's way to the store is cut off at every single operation in turn."""
    storage = Storage(f"file://{tmp_path}/store")
    whole, here = tmp_path / "whole", tmp_path / "here"
    new_run(whole)
    go_on(whole)
    new_run(here)
    go_on(here, stop_at=25)
    mirror = Mirror(storage, "run", here)
    mirror.push()
    before = dict(mirror._stored)
    go_on(here, stop_at=50)
    kept = tmp_path / "kept"
    storage.fs.get(storage.key("run"), str(kept), recursive=True)
    cut_off = 0
    while True:
        with monkeypatch.context() as patch:
            _break_after(storage, cut_off, patch)
            mirror._stored = dict(before)
            try:
                mirror.push()
                break
            except Broken:
                cut_off += 1
        there = tmp_path / "there"
        Mirror(storage, "run", there).fetch()
        assert_can_go_on(there)
        storage.fs.rm(storage.key("run"), recursive=True)
        storage.fs.put(str(kept), storage.key("run"), recursive=True)
    assert cut_off > 20
    there = tmp_path / "there"
    Mirror(storage, "run", there).fetch()
    go_on(there)
    assert_same_runs(there, whole)


def assert_can_go_on(run: Path) -> None:
    """The newest good checkpoint has its replay, and histories at least as long as it needs."""
    store, replay = ReplayStore(run / "replay"), Replay(1, (64, 64, 3))
    saved = checkpoint.load(run, verify=lambda state: store.verify(state["replay"], replay))
    assert saved.step in (25, 50)
    for name, position in saved.state["histories"].items():
        assert (run / name).stat().st_size >= position


def _break_after(storage: Storage, allowed: int, patch: pytest.MonkeyPatch) -> None:
    """Let the store fail, half a file written, after so many operations that change it."""
    done: list[str] = []
    for name in ("put_file", "mv", "rm_file"):
        real = getattr(storage.fs, name)

        def operate(*args, name=name, real=real):
            if len(done) == allowed:
                if name == "put_file":
                    content = Path(args[0]).read_bytes()
                    storage.fs.pipe_file(args[1], content[: len(content) // 2])
                raise Broken
            done.append(name)
            return real(*args)

        patch.setattr(storage.fs, name, operate)


@pytest.mark.parametrize(
    "key",
    ["../outside", "checkpoints/../../outside", "/outside", "a//b", "a\\..\\b", "C:x", "a/./b"],
)
def test_keys_that_lead_out_of_the_run_are_refused(tmp_path, key):
    """Objects in a store are named by any text; on a machine they become files."""
    storage = Storage("memory://suite")
    storage.fs.pipe_file(storage.key("run", "config.json"), b"{}")
    storage.fs.store[f"/suite/run/{key}"] = storage.fs.store["/suite/run/config.json"]
    here = tmp_path / "scratch" / "run"
    try:
        for work in (Mirror(storage, "run", here).fetch, Mirror(storage, "run", tmp_path).push):
            with pytest.raises(UserError, match="no plain name of a file; remove it there"):
                work()
        assert list(tmp_path.rglob("*")) == []
    finally:
        storage.fs.store.clear()


def test_a_run_that_never_had_a_directory_is_no_reason_to_touch_the_store(storage, tmp_path):
    mirror = Mirror(storage, "run", tmp_path / "run")
    mirror.fetch()
    mirror.push()
    assert storage.names("run") == []


def test_urls_that_cannot_be_used_are_refused():
    with pytest.raises(UserError, match="out: nope://x cannot be used"):
        Storage("nope://x")


def test_a_folder_is_trained_in_where_it_lies(tmp_path):
    storage = Storage(str(tmp_path))
    assert storage.in_place
    assert storage.path("run") == tmp_path / "run"
    assert storage.last_lines(5, "missing") == []
    assert storage.read("missing") is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_bytes(b"012\n456\n89")
    assert storage.last_lines(7, "run", "file") == [b"456"]
    assert storage.last_lines(40, "run", "file") == [b"012", b"456"]
    assert storage.last_lines(2, "run", "file") == []
    shutil.rmtree(tmp_path / "run")
    assert storage.names("run") == []
