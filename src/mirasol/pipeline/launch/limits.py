"""How long each level waits for the one below when a run ends: all limits in one place, in seconds.

==================================  ===================================================================================
a driver gets SIGTERM               a supervisor (DVC, Prefect) kills all below it, after :data:`GRACE` at the earliest
... with processes of this machine  they get SIGTERM at once and the same :data:`GRACE`
... with a job of Slurm             :data:`SAVES` for SIGTERM to do, then by force; all done by :data:`CANCELS`
an agent gets SIGTERM               its processes save until whoever sent it ends them: :data:`PATIENT`
a process failed                    the others on its node, stuck in a collective, get :data:`ENDS`
a node's agent failed               the other nodes notice in a second; srun ends them after :data:`SRUN`
a job comes to its time limit       SIGTERM :data:`WARNING` before (Slurm: up to a minute earlier)
==================================  ===================================================================================

Processes themselves (`mirasol.training.ranks`) look for a cause for 3 s, and end a stuck one 8 s after it was named.
"""

from mirasol.pipeline.dvc.process import GRACE as GRACE

SAVES = 6  # of GRACE: processes of a job that its driver cancels save and leave
CANCELS = 9.0  # the guard is done, or gone with its supervisor
PATIENT = 3600.0
ENDS = 2.0  # with SRUN the end is within ten seconds of the timeout that found the stuck one
SRUN = 5  # all processes leave a save together, and each agent waits for the others at the end of a run
WARNING = 60  # a checkpoint is written in it
