"""Layers written for CPUs, where the plain ones of PyTorch are slow."""
