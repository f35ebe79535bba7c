"""The command line, one module a group of commands. Commands import inside: `mirasol answer` needs no torch.

`main` assembles the groups and prints errors; `console` holds the common options and tables.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, main="app")
