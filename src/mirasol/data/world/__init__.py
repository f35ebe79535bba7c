"""The built-in world: synthetic videos with sound, questions and exact answers."""
