"""``volseg densify``: a few drawn slices become a labelled volume."""
