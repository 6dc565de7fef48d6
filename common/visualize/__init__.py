"""Pictures of predictions and training curves."""
