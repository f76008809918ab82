"""Benchmark of each stage of an iteration: how long it takes, how far from the device's limit.

`workbench` holds the stages, `timing`, `peak` and `counting` measure, `combination` measures one
configuration in this process, `apart` several in a process each, `growth` one dimension.
"""
