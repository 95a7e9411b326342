#!/bin/bash
# The batch script of every submission: translates Slurm's variables into the worker's arguments and becomes the worker.
# Arguments: the install root, the python, the site file, the credentials file, the group file.
# `$0` is slurmd's own copy in its spool, so everything is told. A limit warning (USR1) must not end the job before the
# worker has taken over: an ignored signal stays ignored across exec.
trap '' USR1

# A site's prolog, or modules, may have set PYTHONHOME and the like for another python.
unset "${!PYTHON@}"

root=$1 python=$2 site=$3 credentials=$4 group=$5
slurm_id=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    slurm_id=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
fi


# Only a control group of this job alone can tell the worker whether this job ran out of memory.
confined=no
case $(grep -E '^[0-9]+:([^:]*,)?memory(,[^:]*)?:' /proc/self/cgroup || grep '^0::' /proc/self/cgroup) in
    *"/job_$SLURM_JOB_ID/"*) confined=yes ;;
esac

cd "$root" || exit 72
exec "$python" -m worker run \
    --site "$site" --credentials "$credentials" \
    --group "$group" --element "${SLURM_ARRAY_TASK_ID:-0}" \
    --scheduler-id "$slurm_id" --restarts "${SLURM_RESTART_COUNT:-0}" --node "${SLURMD_NODENAME:-$HOSTNAME}" --confined "$confined"
