"""Environments: Atari under named protocols, toy games, and any Gymnasium game with pictures.

Importing this package registers `ALE/*` and `stormrl/*` with Gymnasium.
"""

import ale_py
import gymnasium

from stormrl.envs.check import Check, EnvReport, check_env, dark
from stormrl.envs.make import NO_KWARGS, action_meanings, make_env, spaces_of
from stormrl.envs.protocols import DEFAULT_PROTOCOL, PROTOCOLS, Protocol, find_protocol
from stormrl.envs.snapshots import Snapshot, restore, snapshot
from stormrl.envs.toy import Catch, register_toy_games

__all__ = [
    "DEFAULT_PROTOCOL",
    "NO_KWARGS",
    "PROTOCOLS",
    "Catch",
    "Check",
    "EnvReport",
    "Protocol",
    "Snapshot",
    "action_meanings",
    "check_env",
    "dark",
    "find_protocol",
    "make_env",
    "restore",
    "snapshot",
    "spaces_of",
]

# Without this the emulator prints a banner to stderr for every environment that is made.
ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
gymnasium.register_envs(ale_py)
register_toy_games()
