"""Furnished rooms from a seed, ray-cast exactly and written in the layouts of real datasets.

parts.py: boxes and materials. furniture.py: things built of them. room.py: a furnished room and a walk
through it. raycast.py: light and pictures. writers.py: files on disk. `python -m dataset.synthetic` runs it.
"""
