# What scripts/stress, scripts/soak, scripts/memory and scripts/compare share: a node to put load on.
# Sourced, not run. Needs scripts/steps.sh.

# The program is built from here, unless BINARY names another to compare with.
have_binary() {
    if [ -z "${BINARY:-}" ]; then
        cargo build --release --quiet
        BINARY=target/release/fanfare
    fi
}

# Starts a node of its own on free ports, over the in-process broker, and ends it with the script.
# Its process stands in NODE_PID; where it listens is exported as the client commands read it.
start_node() {
    local log told
    have_binary
    log=$(mktemp)
    "$BINARY" serve --dev --listen 127.0.0.1:0 --api-listen 127.0.0.1:0 2>"$log" &
    NODE_PID=$!
    trap 'kill "$NODE_PID" 2>/dev/null || true; wait "$NODE_PID" || true; rm -f "'"$log"'"' EXIT
    until told=$(grep -m1 '"event":"node_started"' "$log"); do
        kill -0 "$NODE_PID" 2>/dev/null || give_up "the node did not start: $(cat "$log")"
        sleep 0.1
    done
    FANFARE_URL="ws://$(address public "$told")/v1/connect"
    FANFARE_API_URL="http://$(address api "$told")"
    FANFARE_API_KEY=dev
    export FANFARE_URL FANFARE_API_URL FANFARE_API_KEY
    STARTED=$SECONDS
}

# address FIELD LINE: an address in a line of the log.
address() {
    sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" <<<"$2"
}

# Says that the node is still there, and for how long it has been.
tell_uptime() {
    kill -0 "$NODE_PID" 2>/dev/null || give_up "the node ended under the load"
    printf 'the node has been up for %d s\n' "$((SECONDS - STARTED))"
}

# The first lines of a script, which say what it does.
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
}
