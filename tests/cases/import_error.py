"""A package that has not been ported to NumPy 2."""

import numpy as np

TYPES = (bool, np.bool8)
