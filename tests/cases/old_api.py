"""Environments written for the old gym interface."""

from bugbase import Base, register


class Four(Base):
    """step gives four values"""

    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


class ObsOnly(Base):
    """reset gives the picture alone"""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class NoSeed(Base):
    """reset takes nothing"""

    def reset(self):
        self.time = 0
        return self.picture(), {}


class NoneInfo(Base):
    def step(self, action):
        return *super().step(action)[:4], None


class NoneObs(Base):
    def step(self, action):
        return None, *super().step(action)[1:]


class LivesNone(Base):
    def step(self, action):
        return *super().step(action)[:4], {"lives": None}


class LivesArray(Base):
    def step(self, action):
        import numpy as np

        return *super().step(action)[:4], {"lives": np.array([3, 3])}


for c in (Four, ObsOnly, NoSeed, NoneInfo, NoneObs, LivesNone, LivesArray):
    register(f"Bug/{c.__name__}-v0", c)
