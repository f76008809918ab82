import os
import sys

# `python -m` lets modules of the working directory come before all others, which may be a run that
# somebody else has made. Where stormrl itself lies there, it is the person's own.
if sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from stormrl.cli import main

sys.exit(main())
