"""`python -m mirasol` is `mirasol`."""

from mirasol.cli.main import main

if __name__ == "__main__":
    main()
