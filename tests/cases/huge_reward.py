"""Rewards far outside of what the bins of the reward head and float32 hold."""

from bugbase import Base, register


def made(name, scale):
    def step(self, action):
        obs, reward, *rest = Base.step(self, action)
        return obs, (2 * reward - 1) * scale, *rest

    return type(name, (Base,), {"step": step})


for name, scale in {"Million": 1e6, "Billion": 1e9, "Googol": 1e39, "Tiny": 1e-9}.items():
    register(f"Bug/{name}-v0", made(name, scale))
