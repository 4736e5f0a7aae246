# From here on every job's script is the same: one Ray over the job's nodes, with a token of its own, and the sweep on
# it. Before the time limit Slurm sends SIGUSR1: the sweep hands its trials back and writes its verdict so far, the job
# is queued again, and its next run goes on from there. `scancel --batch --signal=INT JOB` ends it likewise, for good.
set -u
START_S=600  # for Ray to start on all nodes
STOP_S=20    # for Ray to end on all nodes

say() {
  printf '%s raymae: %s\n' "$(date +%FT%T)" "$*" >&2
}

# One node of Ray, on the machine where this runs: ray_node PYTHON OPTION... Prints "up ADDRESS" once it is, "told" when
# a signal ends it, else "down" at its end. The kernel chooses every port that nobody has to know beforehand.
ray_node() {
  local python=$1 base=${SLURM_TMPDIR:-/tmp} folder ray='' up='' told='' memory store=()
  shift
  ((${#base} <= 24)) || base=/tmp  # the path of a socket has at most 107 bytes
  folder=$base/raymae-$SLURM_JOB_ID-${SLURM_STEP_ID:-head}-${SLURM_PROCID:-0}
  rm -rf "$folder"
  mkdir -m 700 "$folder" || { echo down; return 1; }
  ulimit -n "$(ulimit -Hn)"
  memory=${SLURM_MEM_PER_NODE:-$((${SLURM_MEM_PER_CPU:-0} * ${SLURM_CPUS_PER_TASK:-1}))}  # MiB of the job's
  ((memory == 0)) || store=(--object-store-memory=$((memory * 1048576 * 3 / 10)))  # Ray looks at the machine's
  trap '[[ -n $told ]] || echo told; told=$SECONDS; kill "$ray"' TERM
  "$python" -m ray.scripts.scripts start --block --disable-usage-stats --temp-dir="$folder" "${store[@]}" \
    --node-manager-port=0 --object-manager-port=0 --metrics-export-port=0 --runtime-env-agent-port=0 \
    --dashboard-agent-listen-port=0 --dashboard-agent-grpc-port=0 --min-worker-port=0 --max-worker-port=0 \
    "$@" > "$folder/start.log" 2>&1 < /dev/null &
  ray=$!
  while kill -0 "$ray"; do
    if [[ -z $up && -s $folder/ray_current_cluster ]]; then
      up=$(< "$folder/ray_current_cluster")
      echo "up $up"
    fi
    [[ -z $told ]] || ((SECONDS < told + 10)) || kill -KILL "$ray"
    sleep 1
  done 2> /dev/null
  if [[ -z $told ]]; then
    echo down
    say "Ray ended on $SLURMD_NODENAME: $(tail -n 20 "$folder/start.log")"
  fi
  rm -rf "$folder"
}

taken() {
  (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

# Ends Ray on every node, and leaves nothing behind.
finish() {
  local until=$((SECONDS + STOP_S))
  trap '' USR1 TERM INT
  trap - EXIT
  kill "$witness" "$head" 2> /dev/null
  scancel --signal=TERM "$SLURM_JOB_ID" 2> /dev/null  # the job's steps, not this script
  while { kill -0 "$head" || kill -0 "$others"; } 2> /dev/null && ((SECONDS < until)); do
    sleep 1
  done
  rm -rf "$folder"
}

# Ends the job with an exit code, leave CODE; queues it again where only its time was over.
leave() {
  finish
  if (($1 > 128)) && [[ $notice =~ ^(USR1|TERM|STEPS)$ && -z $everybody ]]; then
    say "the sweep goes on when Slurm starts the job again"
    scontrol requeue "$SLURM_JOB_ID" || say "Slurm does not queue it again; submit this script once more"
  fi
  exit "$1"
}

# Finds out who got the signal that came: where Slurm ends all of the job's processes, it has decided what comes next.
look_around() {
  sleep 1  # for the signal to reach all
  kill -0 "$witness" 2> /dev/null || everybody=yes
}

# Whether nobody has told the job to end, as long as Ray is not up; leaves where somebody has.
undisturbed() {
  [[ -n $notice ]] || return 0
  look_around
  say "SIG$notice after $SECONDS s, before Ray was up: no trial was started"
  if [[ $notice == USR1 ]] && ((SECONDS > limit_s - notice_s - 70)); then  # Slurm may send it a minute early
    say "the next run would do no better: give the job more --time"
    leave 1
  fi
  leave 143
}

folder=$(mktemp -d "/tmp/raymae-$SLURM_JOB_ID-XXXXXX") || exit 1
head='' others='' notice='' deadline='' everybody=''
trap 'notice=${notice:-USR1}' USR1
trap 'notice=${notice:-TERM}' TERM
trap 'notice=INT' INT
sleep infinity &  # ends where Slurm signals everybody, and not this script alone
witness=$!
disown
trap finish EXIT

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_DASHBOARD_STARTUP_TIMEOUT_S=600
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
unset RAY_AUTH_TOKEN_PATH RAY_ADDRESS

port=$((20000 + SLURM_JOB_ID % 1000 * 10))  # with the two after it; the kernel gives away higher ones only
while taken "$port" || taken $((port + 1)) || taken $((port + 2)); do
  port=$((port + 10))
done
# this machine's address as Slurm has it; where that is none that others could use, Ray looks for one
address=$(scontrol --oneliner show node "$SLURMD_NODENAME" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
[[ $address =~ ^[0-9.]+$ ]] || address=$(getent ahostsv4 "$address" | awk '$1 !~ /^127\./ {print $1; exit}')
# not a step: Slurm signals steps alone before it preempts a job, and the head has to outlive that
ray_node "$python" --num-cpus="$cpus" --num-gpus="$gpus" --head --port="$port" --dashboard-host=127.0.0.1 \
  --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) --resources='{"trial_driver": 10000}' \
  ${address:+"--node-ip-address=$address"} > "$folder/head" &
head=$!
until address=$(sed -n 's/^up //p' "$folder/head") && [[ -n $address ]]; do
  undisturbed
  if ! kill -0 "$head" 2> /dev/null || ((SECONDS > START_S)); then
    say "Ray did not start on $SLURMD_NODENAME within $SECONDS s"
    leave 1
  fi
  sleep 1
done
if ((nodes > 1)); then
  export -f say ray_node
  srun --export=ALL --mpi=none --input=none --exclude="$SLURMD_NODENAME" --nodes=$((nodes - 1)) \
    --ntasks=$((nodes - 1)) --ntasks-per-node=1 --cpus-per-task="$cpus" ${gres:+"--gpus-per-node=$gres"} \
    bash -c 'ray_node "$@"' ray_node "$python" --num-cpus="$cpus" --num-gpus="$gpus" --address="$address" \
    > "$folder/others" &
  others=$!
fi
known() {  # nodes of which a line tells
  echo $((1 + $(grep -c "$1" "$folder/others")))
}
: >> "$folder/others"
while undisturbed && (($(known .) < nodes && SECONDS < START_S)) && kill -0 "$others" 2> /dev/null; do
  sleep 1
done
say "Ray is up on $(known '^up') of $nodes nodes, at $address; dashboard: localhost:$((port + 1)) on $SLURMD_NODENAME"

"${sweep[@]}" --address "$address" -- "$file" &
running=$!
while kill -0 "$running" 2> /dev/null; do
  sleep 1
  if [[ -z $notice ]]; then
    ! grep -q '^told' "$folder/others" || notice=STEPS
    kill -0 "$head" 2> /dev/null || notice=LOST
  fi
  if [[ -n $notice && -z $deadline ]]; then
    deadline=$((SECONDS + notice_s - 30))
    look_around
    case $notice in
      LOST) say "Ray has ended on $SLURMD_NODENAME; the sweep ends, too" ;;
      STEPS) say "Slurm has told Ray's other nodes to end: the sweep hands its trials back" ;;
      *) say "SIG$notice: the sweep hands its trials back" ;;
    esac
    if [[ -n $everybody ]]; then
      deadline=$((SECONDS + 10))  # Slurm kills what is there half a minute later
    else
      kill -TERM "$running"
    fi
  elif [[ -n $deadline ]] && ((SECONDS > deadline)); then
    say "trials did not report in time: what they did since their last reports is done again"
    kill -KILL "$running"
  fi
done
wait "$running"
status=$?
[[ $notice != LOST ]] || status=1
leave "$status"
