#!/usr/bin/env bash
# An evaluation in pieces, without Ray: each task of a SLURM array measures a piece of the scenes and
# keeps its own store. When all are done, their stores, one behind the other, are the store of the
# whole, and the last command draws the table from it without measuring anything:
#
#     job=$(sbatch --parsable examples/cluster/slurm_array.sh)
#     sbatch --dependency=afterok:"$job" --array=0 examples/cluster/slurm_array.sh table
#
# A task that was killed goes on where it was: submit it again.
#SBATCH --job-name=mmattrib
#SBATCH --array=0-9
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
set -euo pipefail

mmattrib=${MMATTRIB:-$PWD/.venv/bin/mmattrib}
runs=${RUNS:-$PWD/runs}
pieces=${PIECES:-10}
piece=${PIECE:-160} # a multiple of 16, the samples of a task
words=(--backbone tiny --method ca-m2ib --method random --metric auc --pair image,text)
jobs=${SLURM_CPUS_PER_TASK:-1}
mkdir -p "$runs"

if [[ ${1:-} == table ]]; then
    cat "$runs"/piece-*.jsonl > "$runs/whole.jsonl"
    "$mmattrib" evaluate "${words[@]}" --limit $((pieces * piece)) \
        --resume "$runs/whole.jsonl" --out "$runs/table.md"
else
    number=$SLURM_ARRAY_TASK_ID
    "$mmattrib" evaluate "${words[@]}" --data-option first=$((number * piece)) --limit "$piece" \
        --resume "$runs/piece-$(printf '%04d' "$number").jsonl" --jobs "$jobs"
fi
