"""Lines of the processes that a driver has started."""

from __future__ import annotations

ERROR = "error: "  # as the command line begins one


class Lines:
    """Prints lines as they come; those from the first error on wait: the driver ends with the same error itself."""

    def __init__(self) -> None:
        self.held: list[str] = []

    def say(self, line: str) -> None:
        """Print or hold one line."""
        if self.held or line.startswith(ERROR):
            self.held.append(line)
        else:
            print(line, flush=True)

    def begin(self, line: str) -> None:
        """Print a line with which the processes start again, after those that wait."""
        self.release()
        print(line, flush=True)

    def release(self) -> None:
        """Print the lines that wait."""
        for line in self.held:
            print(line, flush=True)
        self.held.clear()
