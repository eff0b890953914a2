"""Whole passes in kernels, for rendering: no gradients. `requirements` says of which networks; others run as they are.

projection.py: where samples fall in the views. views.py: all networks of a view. rays.py: attention along a ray, and where
it ends. attention.py: a layer of it. packing.py: weights as the kernels read them. stage.py: a pass made of all these.
"""
