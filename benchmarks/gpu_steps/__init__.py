"""The steps of gpu_checklist.py: each module's `findings` yields names and what was found."""
