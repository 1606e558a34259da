# shellcheck shell=bash disable=SC2034
# Tools of check-helm and check-k8s, each installed once by its package's name and kept by its version in
# target/deploy-tools. Sourced, not run; from the root of the repository.

DEPLOY_TOOLS=${DEPLOY_TOOLS:-$PWD/target/deploy-tools}

HELM_VERSION=4.2.4
# The oldest that the chart is for.
HELM3_VERSION=3.21.4
KUBERNETES_VALIDATE_VERSION=1.37.0
PYYAML_VERSION=6.0.3
KEDA_MODELS_VERSION=2.0.0
PROMETHEUS_MODELS_VERSION=6.0.0
GATEWAY_MODELS_VERSION=2.0.0
CHECKOV_VERSION=3.3.30

lacks() {
    printf 'cannot go on: %s\n' "$*" >&2
    exit 1
}

# Two versions of Helm, built from their Go modules; some minutes each the first time.
need_helm() {
    HELM=$DEPLOY_TOOLS/helm-$HELM_VERSION/helm
    HELM3=$DEPLOY_TOOLS/helm-$HELM3_VERSION/helm
    build_helm "$HELM" "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"
    build_helm "$HELM3" "helm.sh/helm/v3/cmd/helm@v$HELM3_VERSION"
}

# build_helm PROGRAM MODULE
build_helm() {
    [ -x "$1" ] && return 0
    command -v go >/dev/null || lacks "Helm is built with Go, which is not here: install Debian's golang, 1.26 or newer"
    GOBIN=$(dirname "$1") CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$2" ||
        lacks "go could not install $2"
}

# Python with the schemas of Kubernetes 1.25 to 1.37.
need_deploy_python() {
    local home=$DEPLOY_TOOLS/kubernetes-validate-$KUBERNETES_VALIDATE_VERSION
    DEPLOY_PYTHON=$home/bin/python
    [ -f "$home/installed" ] && return 0
    python3 -m venv --clear "$home" || lacks "python3 makes no virtual environment: install Debian's python3-venv"
    "$home/bin/pip" install --quiet --disable-pip-version-check \
        "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" "PyYAML==$PYYAML_VERSION" ||
        lacks "pip could not install kubernetes-validate==$KUBERNETES_VALIDATE_VERSION"
    touch "$home/installed"
}

# Schemas of KEDA, the Prometheus operator and the Gateway API, as code for Node.
need_kubernetes_models() {
    KUBERNETES_MODELS=$DEPLOY_TOOLS/kubernetes-models-$KEDA_MODELS_VERSION-$PROMETHEUS_MODELS_VERSION-$GATEWAY_MODELS_VERSION
    [ -f "$KUBERNETES_MODELS/installed" ] && return 0
    command -v npm >/dev/null || lacks "npm is not here: install Debian's nodejs and npm"
    mkdir -p "$KUBERNETES_MODELS"
    npm install --prefix "$KUBERNETES_MODELS" --no-audit --no-fund --no-save --loglevel=error \
        "@kubernetes-models/keda@$KEDA_MODELS_VERSION" \
        "@kubernetes-models/prometheus-operator@$PROMETHEUS_MODELS_VERSION" \
        "@kubernetes-models/gateway-api@$GATEWAY_MODELS_VERSION" ||
        lacks "npm could not install the @kubernetes-models packages of tests/deploy/tools-helm.sh"
    touch "$KUBERNETES_MODELS/installed"
}

need_checkov() {
    local home=$DEPLOY_TOOLS/checkov-$CHECKOV_VERSION
    CHECKOV=$home/bin/checkov
    [ -f "$home/installed" ] && return 0
    python3 -m venv --clear "$home" || lacks "python3 makes no virtual environment: install Debian's python3-venv"
    "$home/bin/pip" install --quiet --disable-pip-version-check "checkov==$CHECKOV_VERSION" ||
        lacks "pip could not install checkov==$CHECKOV_VERSION"
    touch "$home/installed"
}

need_kubectl() {
    command -v kubectl >/dev/null || lacks "kubectl is not here, for kubectl kustomize: install kubectl 1.30 or newer"
    KUBECTL=$(command -v kubectl)
}

need_promtool() {
    command -v promtool >/dev/null || lacks "promtool is not here: install Debian's prometheus"
    PROMTOOL=$(command -v promtool)
    PROMETHEUS=$(command -v prometheus)
}
