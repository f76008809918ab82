"""Says Box(0, 255, uint8), returns something else of the right shape."""

import numpy as np
from bugbase import Base, register


class Unit(Base):
    """float32 from 0 to 1"""

    def picture(self):
        return super().picture().astype(np.float32) / 255


class Float255(Base):
    """float64 from 0 to 255"""

    def picture(self):
        return super().picture().astype(np.float64)


class OnlyInStep(Base):
    """uint8 from reset, float32 from 0 to 1 from step: the type changes in the middle"""

    def step(self, action):
        obs, *rest = super().step(action)
        return obs.astype(np.float32) / 255, *rest


class Int64(Base):
    def picture(self):
        return super().picture().astype(np.int64)


class Nested(Base):
    """a list, not an array"""

    def picture(self):
        return super().picture().tolist()


class Zero1(Base):
    """uint8, but from 0 to 1"""

    def picture(self):
        return (super().picture() > 127).astype(np.uint8)


class ZeroOneBox(Zero1):
    """the same, and says so: Box(0, 1, uint8)"""

    def __init__(self, render_mode=None):
        from gymnasium import spaces

        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 1, (64, 64, 3), np.uint8)


for c in (Unit, Float255, OnlyInStep, Int64, Nested, Zero1, ZeroOneBox):
    register(f"Bug/{c.__name__}-v0", c)
