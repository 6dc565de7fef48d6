"""What stands between MONAI Label and those who send it something."""
