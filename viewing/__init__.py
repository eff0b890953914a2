"""Visualisation of a scene with a trained network: videos, a page in the browser, labelled geometry, label maps."""
