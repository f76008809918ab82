"""Typed configuration: what a run is described by, its presets, and JSON."""
