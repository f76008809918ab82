"""A local page on which people and agents play a game and its dream (docs/play.md)."""
