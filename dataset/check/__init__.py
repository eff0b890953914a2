"""Is a scene what it should be? A table of what is there, and whether its frames agree with each other.

inventory.py: what the files hold. warping.py: pairs of frames, and one moved into the other. consistency.py: how far they
agree. geometry.py, color.py with alignment.py: what is wrong where they do not. order.py: frames against their neighbours.
outliers.py: single frames that fit no other.
page.py: all of it to be looked at.
`python -m dataset.check scannet/scene0000_00/black_320 …` runs it.
"""
