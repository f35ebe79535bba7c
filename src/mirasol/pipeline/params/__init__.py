"""params.yaml: the schema that the packages' settings compose, loading with all errors at once, documents."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, schema="Params", load="load_params")
