import sys

from stormrl.cli import main

sys.exit(main())
