"""From what people are given to what the loaders read.

sens.py: ScanNet's .sens files, read as a stream. scannet.py, replica.py, transforms.py: one source each.
`python -m dataset.prepare` runs them.
"""
