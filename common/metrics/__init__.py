"""What MONAI lacks in metrics, and per-case tables with bootstrap intervals."""
