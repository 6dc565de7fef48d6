"""Data lists, embedded phantoms, converters of public data sets."""
