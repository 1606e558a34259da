# What the checks of Terraform need, installed by package name into target/deploy-tools and kept there.
# Sourced, not run. Each function prints where its tool is, or ends with words that say what to do.

DEPLOY_TOOLS=${DEPLOY_TOOLS:-target/deploy-tools}

# Versions are pinned: the schemas are those of aws 6.25.0 and google 6.50.0.
CDKTF_AWS=21.22.1
CDKTF_GOOGLE=16.12.1
TF_PROTOCOL=1.2.0
CHECKOV=3.3.30

lack() {
    printf 'check-terraform: %s\n' "$*" >&2
    exit 1
}

need_terraform() {
    command -v terraform ||
        lack "terraform is not installed (1.9 or newer, below 2): install HashiCorp's package terraform"
}

# need_provider_package NAME VERSION: the packed npm package from which schemas are read.
need_provider_package() {
    local folder=$DEPLOY_TOOLS/cdktf file=cdktf-provider-$1-$2.tgz
    mkdir -p "$folder"
    if [ ! -s "$folder/$file" ]; then
        command -v npm >/dev/null || lack "npm is not installed: install the Debian package npm"
        # Packed beside and moved, so that a run that was broken off leaves nothing that looks whole.
        local beside
        beside=$(mktemp -d "$folder/new.XXXXXX")
        npm pack --silent --pack-destination "$beside" "@cdktf/provider-$1@$2" >/dev/null ||
            lack "npm could not fetch @cdktf/provider-$1@$2"
        mv "$beside/$file" "$folder/$file"
        rmdir "$beside"
    fi
    printf '%s\n' "$folder/$file"
}

# need_python_package NAME VERSION: a virtual environment with this package.
need_python_package() {
    local folder=$DEPLOY_TOOLS/$1-$2
    if [ ! -e "$folder/ready" ]; then
        python3 -m venv --clear "$folder" ||
            lack "python3 makes no virtual environment: install the Debian package python3-venv"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$1==$2" >&2 ||
            lack "pip could not install $1==$2"
        touch "$folder/ready"
    fi
    printf '%s\n' "$folder/bin"
}

need_tf_protocol() { need_python_package tf "$TF_PROTOCOL"; }
need_checkov() { need_python_package checkov "$CHECKOV"; }
need_aws_schemas() { need_provider_package aws "$CDKTF_AWS"; }
need_google_schemas() { need_provider_package google "$CDKTF_GOOGLE"; }
