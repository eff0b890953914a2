"""Is a scene what it should be? A table of what is there, and whether its frames agree with each other.

inventory.py: what the files hold. consistency.py: frames warped into each other. alignment.py, order.py:
depth against colour, and frames against their neighbours. page.py: both to be looked at.
`python -m dataset.check scannet/scene0000_00/black_320 …` runs it.
"""
