"""Dreams: what a world model expects, as an environment, as scenes and as curves."""
