"""A run's directory: made once, opened by every command, written by one process at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

from stormrl.config.imports import read_id
from stormrl.config.json import CONFIG, Importer, config_from_dict
from stormrl.config.parts import RunConfig, to_dict
from stormrl.disk.files import (
    Seal,
    make_folder,
    partial,
    read_json,
    readable,
    reason,
    replace,
    replace_by_copy,
)
from stormrl.disk.lock import HeldElsewhere, held
from stormrl.disk.pretrained import PREFIX, unpacked
from stormrl.disk.tree import refuse_foreign
from stormrl.errors import UserError
from stormrl.machine.provenance import provenance
from stormrl.spaces import Spaces, spaces_from_json
from stormrl.worlds.own import own_config

LOCK = ".lock"
DEMONSTRATION = "demonstration.safetensors"

FORMAT = 2
"""Version of the directory's layout and files; a change that older code cannot read raises it."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    # Format 1 knew no spaces; whoever needs them asks the game or a checkpoint.
    1: lambda record: {**record, "format": 2, "spaces": None},
}
"""By format: the function that turns a config.json into one of the next format."""


@dataclass(frozen=True)
class RunDirectory:
    """Where a run keeps everything, and the config that it was started with."""

    path: Path
    config: RunConfig
    demonstration: Seal | None = None
    """Size and checksum of the run's copy of its demonstration; None for a run without one."""
    spaces: Spaces | None = None
    """What the run's game shows and takes; None where format 1 did not write it down."""
    made: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    """Folders that `create` has made for it, the innermost first."""

    @classmethod
    def create(
        cls, path: str | Path, config: RunConfig, spaces: Spaces | None = None
    ) -> RunDirectory:
        """Make the directory of a new run, with a copy of its demonstration.

        spaces: those of the run's game, where they are known already.
        Raises `UserError` if it is already in use or cannot be written.
        """
        path = _path(path)
        if is_pretrained(path):
            remedy = "give another name, or ./ before this one"
            raise UserError("run_dir", f"{path} stands for an agent of the package; {remedy}")
        _refuse_unreadable(config.agent.demonstration.path)
        with _creatable(path):
            run = cls(path, config, spaces=spaces, made=tuple(make_folder(path)))
            _refuse_used(path)  # Before the lock, which would leave a file in a foreign folder.
            with _locked(path):
                _refuse_used(path)
                try:
                    return run._written()
                except BaseException:
                    run.discard()
                    raise

    @classmethod
    def open(cls, path: str | Path, allow_import: Sequence[str] = ()) -> RunDirectory:
        """The directory of a run that exists; for `pretrained:NAME` of the agent, unpacked.

        Its environment is made of what is installed alone; allow_import: modules that may be
        imported for it from wherever Python finds them.
        Raises `UserError` if it is missing, foreign, damaged, of a newer format, or holds a link
        that leads out of it or anything else that is neither file nor folder; and as
        `stormrl.disk.pretrained.unpacked` does.
        """
        path = _located(path)
        try:
            is_run = (path / CONFIG).exists()
        except OSError as error:
            raise UserError("run_dir", f"{path} cannot be read: {reason(error)}") from None
        if not is_run:
            problem = f"has no {CONFIG}" if path.exists() else "does not exist"
            raise UserError("run_dir", f"{path} {problem}; give the directory of a stormrl run")
        refuse_foreign(path)
        record = migrated(read_json(path / CONFIG), path / CONFIG)
        config = config_from_dict(record.get("config"), own_parts(path, allow_import))
        config = replace_fields(config, env=read_id(config.env, path, allow_import))
        spaces = record.get("spaces")
        return cls(
            path,
            config,
            _recorded_seal(record, config, path / CONFIG),
            None if spaces is None else spaces_from_json(spaces),
        )

    def discard(self) -> None:
        """Remove what `create` has made, of a run that could not begin; all stays beside others."""
        own = {CONFIG, DEMONSTRATION, LOCK}
        if any(entry.name not in own for entry in self.path.iterdir()):
            return
        for name in own:
            with suppress(OSError):  # Not there, or in use.
                (self.path / name).unlink()
        with suppress(OSError):  # Not empty.
            for folder in self.made:
                folder.rmdir()

    def _written(self) -> RunDirectory:
        """The run with its files in a folder that is there."""
        spaces = None if self.spaces is None else self.spaces.to_json()
        record = {"format": FORMAT, "config": to_dict(self.config), "spaces": spaces}
        record |= provenance()
        seal = None
        if source := self.config.agent.demonstration.path:
            seal = replace_by_copy(self.path / DEMONSTRATION, Path(source))
            record["demonstration"] = seal._asdict()
        replace(self.path / CONFIG, json.dumps(record, indent=2).encode() + b"\n")
        return replace_fields(self, demonstration=seal)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing into the run; the system frees it if this one dies.

        Raises `UserError` if another process holds it.
        """
        with _locked(self.path):
            yield


def is_pretrained(run: str | Path) -> bool:
    """Whether an agent of the package is meant, and no directory."""
    return str(run).startswith(PREFIX)


def own_parts(source: Path, allowed: Sequence[str] = ()) -> Importer:
    """Who imports the parts that a file in the folder `source` names, by the rules for its game."""

    def imported(kind: str, field: str) -> type:
        return own_config(read_id(kind, source, allowed), field)

    return imported


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(held(path / LOCK))
        except HeldElsewhere as error:
            owner = f"process {error.owner}; wait for its end or stop it"
            raise UserError("run_dir", f"{path} is in use by {owner}") from None
        except OSError as error:
            raise UserError("run_dir", f"{path} cannot be locked: {reason(error)}") from None
        yield


def _located(run: str | Path) -> Path:
    """The one place where `pretrained:NAME` becomes a directory."""
    return unpacked(str(run).removeprefix(PREFIX)) if is_pretrained(run) else _path(run)


def _path(path: str | Path) -> Path:
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path)
    except UnicodeEncodeError:
        pass
    raise UserError("run_dir", f"{str(path)!a} cannot be the name of a directory; give another")


def _refuse_used(path: Path) -> None:
    # What the making of a directory may leave behind where it is cut short.
    harmless = {LOCK, DEMONSTRATION}
    harmless |= {partial(path / name).name for name in (CONFIG, DEMONSTRATION)}
    if any(entry.name not in harmless for entry in path.iterdir()):
        remedy = f"give another name, or go on with it: stormrl train --resume {path}"
        raise UserError("run_dir", f"{path} exists and is not empty; {remedy}")


def _refuse_unreadable(demonstration: str) -> None:
    """Before anything is made."""
    if demonstration:
        with readable(Path(demonstration)):
            Path(demonstration).open("rb").close()


def _recorded_seal(record: dict[str, Any], config: RunConfig, path: Path) -> Seal | None:
    """By which the run's copy of its demonstration is known; one is there if the config says so."""
    if not config.agent.demonstration.path:
        return None
    try:
        return Seal.parse(record.get("demonstration"))
    except ValueError:
        problem = "does not hold size and checksum of the run's demonstration"
        raise UserError(str(path), f"{problem}; give the directory of a stormrl run") from None


@contextmanager
def _creatable(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise UserError("run_dir", f"{path} is a file, or lies in one; give another name") from None
    except OSError as error:
        message = f"{path} cannot be written: {reason(error)}; give another place"
        raise UserError("run_dir", message) from None


def migrated(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a config.json, as it is written today. Raises `UserError` if it is not one."""
    version = record.get("format")
    if type(version) is not int:
        raise UserError("format", f"is missing in {path}; give the directory of a stormrl run")
    if version > FORMAT:
        reads = f"this stormrl reads up to {FORMAT}; upgrade stormrl"
        raise UserError("format", f"is {version} in {path}, written by a newer version; {reads}")
    for step in range(version, FORMAT):
        if step not in MIGRATIONS:
            remedy = "use the version of stormrl that wrote it"
            raise UserError("format", f"is {version} in {path}, which is no longer read; {remedy}")
        record = MIGRATIONS[step](record)
    return record
