"""How long each stage of an iteration takes, and how far that is from the device's limit.

`workbench` holds the stages, `timing`, `peak` and `counting` measure, `combination` measures one
configuration in this process, `apart` several in a process each, `growth` one dimension.
"""
