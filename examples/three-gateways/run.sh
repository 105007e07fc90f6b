#!/usr/bin/env bash
# Three gateways that keep one log: the leader is killed, nothing is lost, it comes back.
#
# With `weir` on the path. Everything is in one directory, on loopback, and gone at the end.
set -euo pipefail

dir=$(mktemp -d)
export WEIR_KNOWN_NODES=$dir/known_nodes WEIR_LOG=warn
export WEIR_NODE=127.0.0.1:7501,127.0.0.1:7502,127.0.0.1:7503
declare -A pid

# Gateway $1, with more arguments of `weir serve`. Loopback stands for three machines, so each has ports of its own.
gateway() {
    local n=$1
    shift
    weir serve --data "$dir/$n" --quic "127.0.0.1:750$n" --http "127.0.0.1:758$n" --kafka off "$@" 2>> "$dir/$n.log" &
    pid[$n]=$!
    # Or the shell would comment on the one that is killed.
    disown $!
}

# Until the command after the description succeeds, for half a minute.
until_so() {
    local what=$1
    shift
    for _ in $(seq 150); do
        if "$@" > /dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "it does not come to this: $what" >&2
    tail -n 5 "$dir"/*.log >&2
    exit 1
}

finish() {
    kill "${pid[@]}" 2> /dev/null || true
    for p in "${pid[@]}"; do
        while kill -0 "$p" 2> /dev/null; do sleep 0.1; done
    done
    rm -rf "$dir"
}
trap finish EXIT

voters() { weir cluster status -o json | grep -o '"role":"[a-z]*"' | grep -cv learner | grep -qx "$1"; }
in_step() { ! weir cluster status -o json | grep -o '"lag":[0-9a-z]*' | grep -qvx '"lag":0'; }

echo "== one gateway"
gateway 1
until_so "gateway 1 answers" weir topic create readings
echo "== two more join, each with a token that lets one in"
gateway 2 --join 127.0.0.1:7501 --token "$(weir cluster invite)"
gateway 3 --join 127.0.0.1:7501 --token "$(weir cluster invite)"
until_so "three voters" voters 3
weir cluster status

echo "== ten thousand readings, and the leader is killed in the middle"
leader=$(weir cluster status -o json | grep -o '"leader":[0-9]*' | cut -d: -f2)
seq -f '{"sensor":"s%g"}' 1 10000 > "$dir/readings"
{
    head -n 5000 "$dir/readings"
    sleep 1
    kill -9 "${pid[$leader]}"
    echo "killed gateway $leader" >&2
    tail -n 5000 "$dir/readings"
} | weir produce readings --idempotent
weir cluster status

echo "== every reading is there, once"
weir consume readings > "$dir/read"
sort "$dir/readings" > "$dir/sent.sorted"
sort "$dir/read" > "$dir/read.sorted"
diff -q "$dir/sent.sorted" "$dir/read.sorted"
echo "$(wc -l < "$dir/read") of 10000"

echo "== gateway $leader comes back and catches up"
gateway "$leader"
until_so "everybody in step" in_step
weir cluster transfer "$leader"
weir consume readings | sort | diff -q "$dir/sent.sorted" -
weir status
