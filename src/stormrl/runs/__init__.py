"""Whole runs, for programs: train, resume, evaluate, film, record."""
