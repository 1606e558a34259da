"""Certificates and tokens of a control plane, made by openssl for one run.

In: a folder, the port of the API server. Out: files in it: the CA, what the API server and an aggregated
API show, the pair that signs tokens of service accounts, and a kubeconfig for each component.
"""

import secrets
import subprocess

# {file: (user, group)}
CLIENTS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
}
SERVER_NAMES = "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"

KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: kube, cluster: {{server: "{server}", certificate-authority: {folder}/ca.crt}}}}]
users: [{{name: user, user: {{token: {token}}}}}]
contexts: [{{name: kube, context: {{cluster: kube, user: user}}}}]
current-context: kube
"""


def make(folder, api_port):
    """Writes all of them. Returns the token of admin."""
    folder.mkdir(mode=0o700)
    for name in ("ca", "front-proxy-ca"):
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.crt")
    leaf(folder, "ca", "apiserver", f"subjectAltName={SERVER_NAMES}\nextendedKeyUsage=serverAuth\n")
    leaf(folder, "ca", "aggregated", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
    leaf(folder, "front-proxy-ca", "front-proxy-client", "extendedKeyUsage=clientAuth\n")
    openssl(folder, "genrsa", "-out", "accounts.key", "2048")
    openssl(folder, "rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
    return kubeconfigs(folder, api_port)


def leaf(folder, ca, name, extensions):
    (folder / f"{name}.ext").write_text(extensions)
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key",
            "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.crt")


def kubeconfigs(folder, api_port):
    tokens = {client: secrets.token_hex(16) for client in CLIENTS}
    lines = [f'{tokens[client]},{user},{user},"{group}"\n' for client, (user, group) in CLIENTS.items()]
    (folder / "tokens.csv").write_text("".join(lines))
    for client, token in tokens.items():
        text = KUBECONFIG.format(server=f"https://127.0.0.1:{api_port}", folder=folder, token=token)
        (folder / f"{client}.kubeconfig").write_text(text)
    return tokens["admin"]


def openssl(folder, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"openssl {' '.join(arguments)} failed:\n{done.stderr}")
