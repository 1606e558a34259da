# What scripts/test and scripts/test-long share: announced steps and installed packages.
# Sourced, not run.

# Programs that the tests need, each with the Debian package that has it.
DEBIAN_PACKAGES=(
    redis-server:redis-server
    node:nodejs
    npm:npm
    python3:python3
)

CLIENTS=target/clients

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

# The clients of tests/real_clients.rs; installed again when their versions change.
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

# name@version for each line of dependencies.
npm_packages() {
    node -p 'Object.entries(require("./tests/clients/package.json").dependencies)
        .map(([name, version]) => `${name}@${version}`).join("\n")'
}
