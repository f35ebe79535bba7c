"""The pipeline: params.yaml, the stages of dvc.yaml, DVC itself, workspaces and releases."""
