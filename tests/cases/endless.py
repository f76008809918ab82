"""A task without an end, and no time limit: the usual thing in robotics and trading."""

from bugbase import Base, register


class Endless(Base):
    length = 10**12


register("Bug/Endless-v0", Endless)
register("Bug/Limited-v0", Endless, max_episode_steps=50)
