"""Random seeds of all that is played beside training, so far apart that no two uses meet.

Episode `i` of a use has its seed + `i`; training begins at the run's own `seed`.
"""

EVALUATION_SEED = 1_000_000
"""Episodes that an agent is scored by."""
FILM_SEED = 2_000_000
"""Episodes that dreams are filmed of."""
RANDOM_SEED = 3_000_000
"""Random play that agents are compared with."""
GAME_SEED = 4_000_000
"""Games that are played to be watched: in the demonstration, and on the page."""
PROBE_SEED = 5_000_000
"""Episodes in which benchmarks look at what an agent believes and chooses."""
SCAN_SEED = 6_000_000
"""Episodes that choose among held actions."""
HELD_SEED = 7_000_000
"""Episodes that the best held actions are scored by."""
UNCOUNTED_SEED = 2**31 - 1
"""Episodes that only fill a batch, and count for nothing."""
