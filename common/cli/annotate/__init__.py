"""``volseg annotate``: which slices to draw next, and how good that choice would have been."""
