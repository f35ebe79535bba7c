"""The pipeline: params.yaml (`params`), the stages of dvc.yaml (`stages`), DVC (`dvc`), workspaces and releases."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, stages="STAGES", workspace="make_workspace")
