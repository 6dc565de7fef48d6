"""The networks of the five methods and the blocks they share."""
