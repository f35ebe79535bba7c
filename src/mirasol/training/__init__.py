"""Training in phases with Lightning: freezing, the optimiser, resumable checkpoints, one LightningDataModule."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    trainer="run_phase",
    weights="load_model save_weights",
    config="PhaseConfig PhaseRun RunPaths TrainingConfig",
    data_module="PhaseDataModule",
    muon="Muon",
    convert_pretrained="import_weights",
)
