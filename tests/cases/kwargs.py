"""Constructors that need, or miss, something."""

from bugbase import Base, register


class Level(Base):
    def __init__(self, level, render_mode=None):
        super().__init__(render_mode)
        self.level = level


class NoRom(Base):
    def __init__(self, render_mode=None):
        raise FileNotFoundError(2, "No such file or directory", "/roms/game.nes")


class NoDisplay(Base):
    def __init__(self, render_mode=None):
        raise RuntimeError("could not open a display")


class Asserts(Base):
    def __init__(self, render_mode=None):
        assert render_mode in self.metadata["render_modes"]
        super().__init__(render_mode)


class NoSpace(Base):
    """spaces are only known after the first reset"""

    def __init__(self, render_mode=None):
        pass


class Exits(Base):
    def __init__(self, render_mode=None):
        raise SystemExit("license key missing")


for c in (Level, NoRom, NoDisplay, Asserts, NoSpace, Exits):
    register(f"Bug/{c.__name__}-v0", c)
register("Bug/Missing-v0", "no_such_module:Game")
register("Bug/NoClass-v0", "bugbase:NoSuchClass")
register("Bug/LevelThree-v0", Level, kwargs={"level": 3})
