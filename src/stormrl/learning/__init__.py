"""Learning: one update of the world model, one of actor and critic, and their state."""
