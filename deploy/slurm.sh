#!/bin/bash
# Trains on several nodes of a Slurm cluster, from the root of the checkout:
#
#   sbatch deploy/slurm.sh --config=configs/cifar10.py --workdir=runs/cifar10 --data_dir=DIR
#
# Options of sbatch before the script's name replace those below: sbatch --nodes=4 --ntasks=4 deploy/slurm.sh ...
# PYTHON is the interpreter; by default, python of the environment that is active when the job is submitted.

#SBATCH --job-name=ncsn
# One task per node, that is one worker: each worker holds the images in memory. The task has all GPUs of its node.
#SBATCH --nodes=2
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
# Two minutes before the time limit, the tasks, not this script, receive SIGTERM: they save and end with code 75.
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
# The job may be requeued: by Slurm after a preemption or the loss of a node, by this script after code 75.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

set -u

# The end of one task must not end the others: a worker that has saved waits for the others, and the others need ten
# seconds to notice a lost worker. Since Slurm 22.05, srun does not take the processors of a task from sbatch.
srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "${PYTHON:-python}" -m launch.train --cluster=slurm "$@"
code=$?

# 75: stopped from outside; the same command continues. 143: the same, before training began. srun returns the highest
# code of its tasks, so a crash of one task is not hidden. A job that is being cancelled is not requeued.
if ((code == 75 || code == 143)) && [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
  echo "Code $code: requeued."
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
