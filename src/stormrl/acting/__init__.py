"""Acting: an agent in a real environment, for training, evaluation and recording."""
