"""Groups of the command line. A command imports what it runs only when it runs: `mirasol answer` needs no torch."""
