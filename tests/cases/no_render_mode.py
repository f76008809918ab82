"""Constructors as most people write their first environment: without render_mode."""

import gymnasium
from bugbase import Base, register


class Plain(Base):
    def __init__(self):
        super().__init__()


class NoMetadata(Base):
    metadata = {}


class Kwargs(Base):
    def __init__(self, **kwargs):
        super().__init__()
        self.got = kwargs


def factory():
    return Base()


register("Bug/Plain-v0", Plain)
register("Bug/NoMetadata-v0", NoMetadata)
register("Bug/Kwargs-v0", Kwargs)
register("Bug/Factory-v0", factory)
if __name__ == "__main__":
    print("gymnasium.make:", gymnasium.make("Bug/Plain-v0").reset(seed=0)[0].shape)
