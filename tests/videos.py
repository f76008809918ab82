"""Videos read back, which the package only writes."""

from pathlib import Path

import av
import numpy as np

from stormrl.pictures.media import Frames


def read_video(path: str | Path) -> Frames:
    """All frames of a video or GIF, uint8 [T, H, W, 3]."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return np.stack(frames).astype(np.uint8, copy=False)
