"""A small, well-behaved pixel game; the trials change one thing each.

The red channel of the whole picture shows the time step (8 a step), so that what is stored can be
compared with what should have been stored. Action 1 earns 1. Ends after `length` steps.
"""

import gymnasium
import numpy as np
from gymnasium import spaces


class Base(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    size, length, actions = 64, 30, 3

    def __init__(self, render_mode=None):
        self.observation_space = spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)
        self.action_space = spaces.Discrete(self.actions)
        self.render_mode = render_mode
        self.time = 0

    def picture(self):
        image = np.zeros((self.size, self.size, 3), np.uint8)
        image[..., 0] = (self.time * 8) % 256
        image[8 * (self.time % 8) : 8 * (self.time % 8) + 8, :, 1] = 255
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.picture(), {}

    def step(self, action):
        self.time += 1
        return self.picture(), float(action == 1), self.time >= self.length, False, {}

    def render(self):
        return self.picture()


def register(name, cls, **more):
    if name not in gymnasium.registry:
        gymnasium.register(name, cls, **more)
