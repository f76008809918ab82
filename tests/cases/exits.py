"""A module that ends the program when it is imported."""

import sys

sys.exit("set LICENSE_KEY first")
