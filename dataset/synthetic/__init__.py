"""Furnished rooms from a seed, ray-cast exactly and written in the layouts of real datasets.

A room is parts with materials and classes; a walk is cameras through it; a caster makes pictures; a writer, files.
Three kinds of rooms, each with a walk: room.py (furniture.py: boxes), fine.py (blocks in fine textures), modelled.py
(furniture models). generate.py makes many at once; `python -m dataset.synthetic` runs it.

Of boxes: parts.py, raycast.py (PyTorch, any device).
Of models: models.py and pack.py (libraries, and one file of what is used of them), catalogue.py (what a name means),
themes.py (what stands together), walks.py, meshes.py, dressing.py (models in a room's materials), fixtures.py (walls,
doors, windows), textures.py, meshcast.py (Embree, CPU).
Of both: placing.py, writers.py.
"""
