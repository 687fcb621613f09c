"""Other projects' weights to our variables."""
