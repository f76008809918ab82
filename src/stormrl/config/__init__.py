"""Typed configuration: what a run is described by, its presets, and JSON."""

from stormrl.config.validation import validate

__all__ = ["validate"]
