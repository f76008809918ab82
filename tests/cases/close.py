"""close() fails, as those of viewers do when the display is gone."""

from bugbase import Base, register


class BadClose(Base):
    def close(self):
        raise AttributeError("'NoneType' object has no attribute 'close'")


register("Bug/BadClose-v0", BadClose)
