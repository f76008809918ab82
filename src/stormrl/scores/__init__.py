"""Scores: what returns amount to, beside published ones."""
