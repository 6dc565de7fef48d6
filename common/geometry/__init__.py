"""Pure tensor functions: boxes, components, grids, labels, B-splines. No modules, no files."""
