"""The report: one self-contained HTML page from Jinja templates, and Markdown."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, page="write_report", project="read_project")
