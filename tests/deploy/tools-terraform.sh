# What the checks of Terraform need, installed by package name into target/deploy-tools and kept there.
# Sourced, not run. Each function prints where its tool is, or ends with words that say what to do.

DEPLOY_TOOLS=${DEPLOY_TOOLS:-target/deploy-tools}

# Versions are pinned: the schemas are those of aws 6.25.0 and google 6.50.0.
CDKTF_AWS=21.22.1
CDKTF_GOOGLE=16.12.1
TF_PROTOCOL=1.2.0
CHECKOV=3.3.30
TFLINT=0.64.0

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

# Built from its Go module, which takes some minutes the first time. Its rulesets for aws and google cannot
# be had so: no module proxy has them.
need_tflint() {
    local folder
    folder=$(mkdir -p "$DEPLOY_TOOLS" && cd "$DEPLOY_TOOLS" && pwd)/tflint-$TFLINT/bin
    if [ ! -x "$folder/tflint" ]; then
        command -v go >/dev/null || lack "go is not installed: install the Debian package golang"
        GOBIN=$folder CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "github.com/terraform-linters/tflint@v$TFLINT" >&2 ||
            lack "go could not build github.com/terraform-linters/tflint@v$TFLINT"
    fi
    printf '%s\n' "$folder/tflint"
}

need_tf_protocol() { need_python_package tf "$TF_PROTOCOL"; }
need_checkov() { need_python_package checkov "$CHECKOV"; }
need_aws_schemas() { need_provider_package aws "$CDKTF_AWS"; }
need_google_schemas() { need_provider_package google "$CDKTF_GOOGLE"; }
