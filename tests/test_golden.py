"""Not one bit of STORM changes by accident."""

import json
from pathlib import Path

import pytest

import golden

RECORD = json.loads(golden.BITS.read_text())


@pytest.mark.parametrize("preset", golden.PRESETS)
def test_a_short_training_leaves_the_bits_that_it_always_left(preset: str, tmp_path: Path) -> None:
    """Bit for bit on a processor that has written its bits; elsewhere within what rounding adds.

    Matrix products add up in another order on other processors, and then a draw may fall on another
    class, so that there the second check stands alone. It is the weaker one: sizes of weights.
    """
    found = golden.trained(preset, tmp_path)
    sizes = RECORD["sizes"][preset]
    assert {n for n, t in found.items() if golden.is_weight(n, t)} == sizes.keys()
    for name, expected in sizes.items():
        assert golden.size(found[name]) == pytest.approx(expected, rel=0.05, abs=1e-3), name
    written = RECORD["machines"].get(golden.machine())
    if written is None:
        pytest.skip(f"no bits of {golden.machine()}: run python tests/golden.py there")
    changed = [
        name for name, tensor in found.items() if golden.bits(tensor) != written[preset][name]
    ]
    assert changed == []
