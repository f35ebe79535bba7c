"""The lowest package: errors, files, progress and the list of deciding code. Standard library, and rich for bars."""
