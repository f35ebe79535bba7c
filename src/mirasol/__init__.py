"""mirasol: train Mirasol3B on your own videos, and stream answers from what you trained.

Importing this package imports nothing else: each room is imported by whoever needs it.
"""

__version__ = "0.1.0"
