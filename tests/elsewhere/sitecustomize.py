"""Python as on a system that is not Linux: what it lacks there is taken away first of all.

Every Python that finds this file on its path begins so, those that tests start as well. Of
libraries' own calls, only those are taken that a library's half for such a system does without.
"""

import asyncio  # noqa: F401 - its half for Linux asks for fcntl, the other half does not
import os
import signal
import sys
from contextlib import suppress

with suppress(ImportError):
    import psutil  # noqa: F401 - likewise

MODULES = ("fcntl", "resource")
CALLS = ("sched_getaffinity", "sched_setaffinity", "sysconf", "getuid", "geteuid")
SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE")

os.environ.setdefault("USERNAME", "somebody")  # By which Windows tells who is asking.
for _name in MODULES:
    sys.modules[_name] = None  # pyright: ignore[reportArgumentType] - so that importing it fails
for _name in CALLS:
    delattr(os, _name)
for _name in SIGNALS:
    delattr(signal, _name)
