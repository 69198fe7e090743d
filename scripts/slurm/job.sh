# What the job scripts of this folder share. They read it; it is no job itself.
trap requeue USR1

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
