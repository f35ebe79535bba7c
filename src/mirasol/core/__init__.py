"""The lowest package: errors, files written whole, progress, fields of settings, and the list of deciding code.

Standard library, and rich for progress bars.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__, errors="MirasolError", progress="Progress", files="atomic_write write_json", code="STAGES code_hash"
)
