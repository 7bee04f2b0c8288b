#!/usr/bin/env bash
# One evaluation on several machines of a SLURM cluster, through Ray:
#
#     sbatch examples/cluster/slurm_ray.sh --backbone clip --data coco --data-option folder=/data/coco \
#         --method ca-m2ib --metric auc --resume /data/runs/coco.jsonl --out /data/runs/coco.md
#
# What stands behind the script goes to `mmattrib evaluate`. Submitted again with the same words it goes
# on where it was; put --resume on a disk that every machine sees. Every machine needs the same
# environment, here .venv of the folder from which the job is submitted, with the extra `ray`.
#SBATCH --job-name=mmattrib
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
# For GPUs, e.g. two a machine:
##SBATCH --gpus-per-node=2
set -euo pipefail

bin="$PWD/.venv/bin"
port=${PORT:-6379}
gpus=${SLURM_GPUS_ON_NODE:-0}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
export RAY_USAGE_STATS_ENABLED=0
# Ray runs whatever those ask for who reach its ports: only this job's own processes may.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')

start() { # on one machine, for as long as the job runs
    srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$1" \
        "$bin/ray" start "${@:2}" --block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" &
}

start "$head" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
for ((tries = 0; tries < 120; tries++)); do # until it answers
    (exec 3<> "/dev/tcp/$address/$port") 2> /dev/null && break
    sleep 1
done
for node in "${nodes[@]:1}"; do
    start "$node" --address="$address:$port"
done

# A worker for each GPU, or for each processor where there is none.
if ((gpus > 0)); then
    jobs=$((SLURM_JOB_NUM_NODES * gpus)) device=cuda
else
    jobs=$((SLURM_JOB_NUM_NODES * SLURM_CPUS_PER_TASK)) device=cpu
fi
RAY_ADDRESS="$address:$port" "$bin/mmattrib" evaluate \
    --engine ray --jobs "$jobs" --device "$device" "$@" &
run=$!
trap 'kill -TERM "$run"; wait "$run"' TERM # two minutes before the end, and by scancel --batch
wait "$run"
