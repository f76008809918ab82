"""How the scripts here end."""

import sys
from collections.abc import Callable

from stormrl.errors import UserError


def run(main: Callable[[], None]) -> None:
    """A user's mistake is told in one line, and the exit code is 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
