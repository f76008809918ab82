"""Many runs: what is to be trained, on which machines, and how far it is.

Only `ray_pool` knows Ray; everything else can be imported without it.
"""
