"""Checks and packing of bundles; knows files, not models; never vendored into a bundle."""
