"""How the package is built: which folder may import which, and one name for one thing."""

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import stormrl

PACKAGE = Path(stormrl.__file__).parent
LAYERS = (
    ("errors", "seeds", "types"),
    ("spaces",),
    ("config", "pictures"),
    ("envs",),
    ("nn",),
    ("machine", "worlds"),
    ("agents", "disk"),
    ("dreams", "experience", "history"),
    ("acting",),
    ("learning", "scores"),
    ("bench", "runs"),
    ("play", "report", "suite"),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Folders and single files at the package's top, lowest first; each imports from lower ones."""
VERSION = "__version__"
"""All that any part may take from the package itself."""
MOST_FILES_AT_TOP = 8
MOST_ARROWS = 159


class Import(NamedTuple):
    """One imported module, and the place that names it."""

    file: str
    line: int
    module: str
    """Below the package, as in `config.parts`."""

    @property
    def importer(self) -> str:
        return room(self.file)

    @property
    def imported(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports stormrl.{self.module}"


def room(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def layer(name: str) -> int:
    """Its number, or -1 for what stands in none."""
    return next((number for number, rooms in enumerate(LAYERS) if name in rooms), -1)


@functools.cache
def trees(package: Path) -> list[tuple[str, ast.Module]]:
    paths = sorted(package.rglob("*.py"))
    return [(path.relative_to(package).as_posix(), ast.parse(path.read_text())) for path in paths]


def imports(package: Path) -> Iterator[Import]:
    """Every import of the package's own parts, wherever in a module it stands."""
    for file, tree in trees(package):
        for node in ast.walk(tree):
            for module in imported_modules(node):
                first, _, rest = module.partition(".")
                if first == "stormrl" and rest != VERSION:
                    yield Import(file, getattr(node, "lineno", 0), rest)


def imported_modules(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names)
        case ast.ImportFrom(module="stormrl", names=names):
            yield from (f"stormrl.{name.name}" for name in names)
        case ast.ImportFrom(module=module, level=level):
            # A relative import is read as one of the package itself, which is refused.
            yield "stormrl" if level or module is None else module


def wrong_imports(package: Path) -> list[str]:
    return [
        f"{found}: layer {layer(found.importer)} ({found.importer}) "
        f"from layer {layer(found.imported)} ({found.imported or 'the package itself'})"
        for found in imports(package)
        if found.importer != found.imported
        and not layer(found.importer) > layer(found.imported) >= 0
    ]


def repeated_classes(package: Path) -> list[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{file}:{node.lineno}")
    return [f"{name}: {', '.join(at)}" for name, at in places.items() if len(at) > 1]


def test_imports_run_one_way() -> None:
    assert not wrong_imports(PACKAGE), "\n".join(wrong_imports(PACKAGE))


def test_every_folder_stands_in_one_layer() -> None:
    found = {room(file) for file, _ in trees(PACKAGE)}
    assert sorted(name for rooms in LAYERS for name in rooms) == sorted(found)


def test_few_folders_know_each_other() -> None:
    arrows = {
        (found.importer, found.imported)
        for found in imports(PACKAGE)
        if found.importer != found.imported
    }
    assert len(arrows) <= MOST_ARROWS


def test_few_files_lie_at_the_top() -> None:
    files = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(files) <= MOST_FILES_AT_TOP, files


def test_a_class_name_means_one_thing() -> None:
    assert not repeated_classes(PACKAGE), "\n".join(repeated_classes(PACKAGE))


@pytest.mark.parametrize(
    "source",
    [
        "import stormrl.worlds.latent",
        "def late():\n    from stormrl.worlds.latent import WorldModel",
        "if TYPE_CHECKING:\n    from stormrl import worlds",
        "from stormrl import train",
        "import stormrl",
        "from . import worlds",
        "from stormrl.envs import PROTOCOLS",
    ],
)
def test_an_import_that_goes_up_or_aside_is_found_anywhere(tmp_path: Path, source: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "parts.py").write_text(f"from stormrl import __version__\n{source}\n")
    (message,) = wrong_imports(tmp_path)
    line = 1 + len(source.splitlines())
    assert message.startswith(f"config/parts.py:{line} imports stormrl.")
    assert "layer 2 (config) from layer" in message


def test_a_class_that_is_defined_twice_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class Plan: ...\n\nclass Other: ...\n")
    (tmp_path / "two.py").write_text("def made():\n    class Plan: ...\n")
    assert repeated_classes(tmp_path) == ["Plan: one.py:1, two.py:2"]
