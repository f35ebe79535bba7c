"""The one kind of error that a user is meant to read."""

from __future__ import annotations


class MirasolError(Exception):
    """Something the user can mend: bad input, a missing file, a full disk.

    The message says what is wrong, where (file, line, key, clip), what was expected and what
    to do. The command line prints it without a traceback and exits with status 2; a stage also
    records it in ``runs/<stage>/error.json``.
    """
