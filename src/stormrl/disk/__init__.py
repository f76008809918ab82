"""Files that survive: written whole, verified when read, nothing in them ever executed."""
