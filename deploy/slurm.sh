#!/bin/bash
# Trains on several nodes of a Slurm cluster, from the root of the checkout:
#
#   sbatch deploy/slurm.sh --config=configs/cifar10.py --workdir=runs/cifar10 --data_dir=DIR
#
# Options of sbatch before the script's name replace those below: sbatch --nodes=4 --ntasks=4 deploy/slurm.sh ...
# PYTHON names the interpreter; without it, python of the environment that is active when the job is submitted.

#SBATCH --job-name=ncsn
# One task, that is one worker, a node: the images are in memory once a worker. All GPUs of a node go to its task.
#SBATCH --nodes=2
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
# Two minutes before the time is over, SIGTERM to the tasks, not to this script: they save and end with code 75.
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
# May be put back into the queue: by Slurm after a pre-emption or the loss of a node, by this script after code 75.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

set -u

# A worker that has saved must wait for the others, and a lost one leaves the others ten seconds to notice: no task's
# end ends the rest. Since Slurm 22.05 srun does not take the processors of a task from sbatch.
srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "${PYTHON:-python}" -m launch.train --cluster=slurm "$@"
code=$?

# 75: stopped from outside, and the same command goes on. 143: the same, before training began. srun returns the
# highest code of its tasks, so a crash of one of them is not hidden. A job that is being cancelled is let go.
if ((code == 75 || code == 143)) && [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
  echo "Code $code: back into the queue."
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
