"""The machine: its devices, memory, random generators and signals."""
