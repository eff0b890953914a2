"""Looking at what a network makes of a scene: videos, a page in the browser, labelled geometry."""
