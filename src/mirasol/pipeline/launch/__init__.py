"""Starting the processes of a training phase: on this machine, or as a job of a Slurm cluster."""

from mirasol.core.face import face

__all__, __getattr__ = face(__name__, config="Cluster load_cluster")
