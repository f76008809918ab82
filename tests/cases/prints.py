"""An environment that prints to standard output."""

from bugbase import Base, register


class Prints(Base):
    def reset(self, *, seed=None, options=None):
        print("hello from the game engine 2.5.2")
        return super().reset(seed=seed)


register("Bug/Prints-v0", Prints)
