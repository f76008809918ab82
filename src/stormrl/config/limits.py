"""How much of what a file says is believed without being asked to."""

MAX_SIZE = 200_000_000
"""Numbers that a part of a run may hold: the parameters of twelve agents of size base."""
