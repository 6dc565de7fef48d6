"""Array and dictionary transforms, MONAI's conventions."""
