"""The command line, one module a group of commands. Commands import inside: `mirasol answer` needs no torch."""
