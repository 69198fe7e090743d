# What the job scripts of this folder share. They read it; it is no job itself.

# open_run RUN: check the folder of a run and set up what the launcher noted for its jobs.
open_run() {
    if [[ ! -d $1/stages ]]; then
        echo "error: $1: no run has begun there; begin it with scripts/run_experiment.py EXPERIMENT.yaml --launcher slurm" >&2
        exit 2
    fi
    PYTHON=.venv/bin/python
    if [[ -f $1/stages/environment.sh ]]; then
        set +u # modules and activate scripts read variables that are not set
        source "$1/stages/environment.sh"
        set -u
    fi
    export PYTHON
    trap requeue USR1
}

# The time limit is near (--signal=B:USR1@120): end and wait for another turn, to go on from the last complete checkpoint or
# shard. SLURM itself requeues only what was preempted or lost its node. USR1, as TERM comes with scancel, too.
requeue() {
    if ((${SLURM_RESTART_COUNT:-0} >= 20)); then
        echo "job $SLURM_JOB_ID has had 20 turns and ends; if none of them saves anything, raise its time limit" >&2
    else
        echo "job $SLURM_JOB_ID is requeued before its time limit"
        scontrol requeue "$SLURM_JOB_ID"
    fi
}

# run COMMAND...: wait for a command in such a way that the warning is heard while it runs.
run() {
    local status=0
    "$@" &
    wait $! || status=$?
    while kill -0 $! 2>/dev/null; do # the warning ended the wait, not the command
        status=0
        wait $! || status=$?
    done
    return $status
}
