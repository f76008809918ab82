"""World models: what is seen becomes a latent state, and dreams go on from it."""
