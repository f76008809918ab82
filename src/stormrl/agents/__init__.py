"""Agents: policy and value function on what a world model shows, and their losses."""
