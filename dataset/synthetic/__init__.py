"""Furnished rooms from a seed, ray-cast exactly and written in the layouts of real datasets.

A room consists of parts, each with a material and a class. A walk is a sequence of cameras in it, a caster renders the
frames, and a writer saves them. There are three kinds of rooms, each with its own walk: room.py (furniture built of
boxes by furniture.py), fine.py (block furniture with fine textures) and modelled.py (furniture models). generate.py
generates many rooms at once; `python -m dataset.synthetic` is its command line.

Rooms of boxes: parts.py, raycast.py (PyTorch, any device).
Rooms of models: models.py and pack.py (furniture libraries, and a file of the models used), catalogue.py (kind and
class of a model by its name), themes.py (furniture of each theme), walks.py, meshes.py, dressing.py (materials of
models), fixtures.py (walls, doors, windows), textures.py, meshcast.py (Embree, CPU).
Both: placing.py, writers.py.
"""
