"""The command line: one table of commands, and one line for every mistake."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from stormrl import __version__
from stormrl.errors import UserError
from stormrl.machine.allocator import keep_freed_memory
from stormrl.machine.lenient import lenient, printable
from stormrl.machine.stop import EXIT_INTERRUPTED, EXIT_UNREAD, Stopped

COMMANDS = {
    "train": "train an agent on a game, or go on with a run",
    "eval": "play whole episodes with a trained agent and write down every score",
    "play": "play the game and its dream side by side, in a browser",
    "dream": "film what the world model expects next to what happens",
    "report": "one HTML page about one run or hundreds",
    "doctor": "tell why a run does not learn",
    "reproduce": "tell whether runs agree with the published ones, game by game",
    "suite": "train many games, presets and seeds, on one machine or a Ray cluster",
    "record": "keep episodes of a scripted, random or trained policy",
    "bench": "time every stage of training on this machine",
    "pretrained": "list the trained agents that come with the package",
    "presets": "list algorithms, sizes and protocols",
    "check-env": "tell whether an environment can be trained on",
    "import-official": "make a run out of the authors' released weights",
    "export-official": "write a run's weights for the authors' released code",
    "demo": "train, evaluate and film a small agent within minutes",
}
"""A command is a line here and `main(args) -> exit code` in the module of its name."""

EXIT_MISTAKE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.

    0: done. 2: the user's mistake, told in one line on standard error. 3: asked to stop: a training
    can be resumed, other work gave up what was not complete.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except UserError as error:
        _say(" ".join(str(error).split()))
        return EXIT_MISTAKE
    except Stopped:
        _say("stopped; what was not complete is not kept")
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` does: nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    return code


def _run(argv: list[str]) -> int:
    match argv:
        case [] | ["-h" | "--help" | "help", *_]:
            print(_help())
        case ["--version", *_]:
            print(f"stormrl {__version__}")
        case [name, *args]:
            return _command(name, args)
    return 0


def _command(name: str, args: list[str]) -> int:
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"give one of {', '.join(COMMANDS)}"
        raise UserError("command", f"{name!r} is unknown; {hint}")
    # Imported late: no command waits for the libraries of another.
    module = importlib.import_module(f"stormrl.commands.{name.replace('-', '_')}")
    keep_freed_memory()  # The process is the command's own.
    try:
        with _output(args):
            return module.main(args)
    except SystemExit as done:  # tyro has printed a command's help.
        return int(done.code or 0)


def _say(text: str) -> None:
    """One line on standard error, if anybody is left to read it; its exit code says the same."""
    print("stormrl:", printable(text), file=lenient(sys.stderr))


def _output(args: list[str]) -> AbstractContextManager[None]:
    """Whoever asks for one JSON object gets that object and no word of a game's."""
    if "--json" not in args or {"-h", "--help"} & set(args):
        return nullcontext()
    from stormrl.commands.output import results_apart

    return results_apart()


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        "usage: stormrl COMMAND [FLAGS]\n\n"
        "World-model reinforcement learning in PyTorch, built around STORM.\n\n"
        f"commands:\n{commands}\n\n"
        "stormrl COMMAND --help tells the flags of a command, stormrl --version the version."
    )
