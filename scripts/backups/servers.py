"""The Redis of a cluster of nodes: its deployments, each in the form that redis.url may have, and
their masters. For scripts/backup, scripts/restore and scripts/carry-revocations."""

import argparse
import dataclasses
import os
import pathlib
import sys
import tomllib
import urllib.parse

try:
    import redis
    import redis.backoff
    import redis.cluster
    import redis.retry
    import redis.sentinel
except ImportError:
    redis = None

SLOTS = 16384
# How long a Redis may be silent.
SILENCE_S = 30


class Wrong(Exception):
    """What is wrong, and what to do, in words for people."""


class Arguments(argparse.ArgumentParser):
    """One whose exit code for a wrong call is that of `fanfare`."""

    def __init__(self, words):
        super().__init__(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def need_package(script):
    """After the arguments, so that --help works without it."""
    if redis is None:
        raise SystemExit(f"{script}: the Python package redis is missing: pip install redis==8.1.0")


@dataclasses.dataclass
class Access:
    """What is the same for all servers: redis.user and the files."""

    user: str | None = None
    password: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def tls(self):
        return {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.certificate_file,
                "ssl_keyfile": self.key_file}


@dataclasses.dataclass
class Server:
    """One master, and how to speak to it."""

    host: str
    port: int
    path: str | None
    database: int
    user: str | None
    password: str | None
    is_tls: bool
    access: Access

    def __str__(self):
        place = self.path or f"{self.host}:{self.port}"
        return f"{place} (database {self.database})"

    def client(self):
        """A client whose answers are bytes."""
        login = {"username": self.user, "password": self.password, "db": self.database}
        # Once: what is written a second time would be refused, since its key is there.
        once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        login |= {"socket_timeout": SILENCE_S, "socket_connect_timeout": 5, "retry": once}
        if self.path:
            return redis.Redis(unix_socket_path=self.path, **login)
        tls = self.access.tls() if self.is_tls else {}
        return redis.Redis(host=self.host, port=self.port, ssl=self.is_tls, **login, **tls)

    def cli(self):
        """The arguments and the environment with which redis-cli speaks to it."""
        words = ["-s", self.path] if self.path else ["-h", self.host, "-p", str(self.port)]
        if self.user:
            words += ["--user", self.user]
        if self.is_tls:
            words.append("--tls")
            files = (("--cacert", self.access.ca_file), ("--cert", self.access.certificate_file),
                     ("--key", self.access.key_file))
            words += [word for option, file in files if file for word in (option, file)]
        # Not on the command line, which every user of the machine can read.
        return words, {**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})}


class Deployment:
    """One server, one master behind sentinels, or one Redis Cluster."""

    def __init__(self, url, access):
        self.url, self.access = urllib.parse.urlsplit(url), access
        scheme = self.url.scheme.replace("valkeys", "rediss").replace("valkey", "redis")
        self.is_tls = scheme.startswith("rediss")
        self.form = scheme.replace("rediss", "redis")
        if self.form not in ("redis", "redis-sentinel", "redis-cluster", "unix"):
            raise Wrong(f"{self.url.scheme}:// is no form of redis.url: docs/configuration.md has them")
        query = dict(urllib.parse.parse_qsl(self.url.query))
        self.name, self.master = query.get("name", ""), query.get("master")
        self.sentinel_login = query.get("sentinel")
        login, _, hosts = self.url.netloc.rpartition("@")
        user, _, password = login.partition(":")
        self.user = urllib.parse.unquote(user) or access.user
        self.password = urllib.parse.unquote(password) or access.password
        self.hosts = [host_and_port(one, 26379 if self.master else 6379) for one in hosts.split(",") if one]
        path = self.url.path.strip("/")
        number = query.get("db", "0") if self.form == "unix" else path or "0"
        if not number.isdecimal():
            raise Wrong(f"the database in redis.url is no number: {number}")
        self.database = int(number)
        if self.form != "unix" and not self.hosts:
            raise Wrong("redis.url names no host")

    def server(self, host, port, path=None):
        return Server(host, port, path, self.database, self.user, self.password, self.is_tls, self.access)

    def masters(self):
        """Its masters, each asked whether it is one."""
        if self.form == "redis-cluster":
            found = self.masters_of_cluster()
        elif self.form == "redis-sentinel":
            found = [self.master_by_sentinels()]
        elif self.form == "unix":
            found = [self.server("", 0, self.url.path)]
        else:
            found = [self.server(*self.hosts[0])]
        for server in found:
            role = asked(server, lambda client: client.role())[0]
            if role != b"master":
                raise Wrong(f"Redis at {server} is a replica: name its master")
        return found

    def master_by_sentinels(self):
        if not self.master:
            raise Wrong("redis-sentinel:// needs ?master=NAME")
        login = {}
        if self.sentinel_login:
            user, _, password = self.sentinel_login.partition(":")
            login = {"username": user, "password": password}
        tls = {"ssl": True, **self.access.tls()} if self.is_tls else {}
        sentinels = redis.sentinel.Sentinel(self.hosts, sentinel_kwargs={**login, **tls}, socket_timeout=5)
        try:
            return self.server(*sentinels.discover_master(self.master))
        except redis.RedisError as failed:
            raise Wrong(f"no sentinel of {self.master} says where its master is: {failed}") from None

    def masters_of_cluster(self):
        slots = asked(self.server(*self.hosts[0]), lambda client: client.execute_command("CLUSTER SLOTS"))
        # Depending on its version the library gives ranges as keys, or the answer as it came.
        if isinstance(slots, dict):
            ranges = [(*span, node["primary"][0], node["primary"][1]) for span, node in slots.items()]
        else:
            ranges = [(first, last, nodes[0][0], nodes[0][1]) for first, last, nodes, *_ in
                      ([row[0], row[1], row[2:]] for row in slots)]
        served = sum(last - first + 1 for first, last, *_ in ranges)
        if served != SLOTS:
            raise Wrong(f"{SLOTS - served} slots of the Redis Cluster have no master: mend it first")
        places = {(text(host) or self.hosts[0][0], int(port)) for _, _, host, port in ranges}
        return [self.server(host, port) for host, port in sorted(places)]

    def places(self):
        return ",".join(f"{host}:{port}" for host, port in self.hosts) or self.url.path

    def writer(self):
        """A client that brings each key to the master that has it."""
        if self.form != "redis-cluster":
            return self.masters()[0].client()
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in self.hosts]
        tls = {"ssl": True, **self.access.tls()} if self.is_tls else {}
        try:
            return redis.cluster.RedisCluster(
                startup_nodes=nodes, username=self.user, password=self.password, socket_timeout=SILENCE_S, **tls)
        except (redis.RedisError, redis.exceptions.RedisClusterException) as failed:
            raise Wrong(f"the Redis Cluster at {self.places()} cannot be asked: {failed}") from None


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def host_and_port(place, port):
    """`host`, `host:port` or `[address]:port`."""
    try:
        parts = urllib.parse.urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port or port
    except ValueError:
        host = None
    if not host:
        raise Wrong(f"{place} in redis.url is no host: give HOST, HOST:PORT or [ADDRESS]:PORT")
    return host, port


def asked(server, question):
    """The answer of one server, or what is wrong with it."""
    try:
        return question(server.client())
    except redis.AuthenticationError as refused:
        raise Wrong(f"Redis at {server} refuses user or password: {refused}") from None
    except (redis.RedisError, OSError) as failed:
        raise Wrong(f"Redis at {server} cannot be asked: {failed}") from None


def environment_of(file):
    """The variables of a file as systemd's EnvironmentFile= reads them."""
    found = {}
    try:
        lines = pathlib.Path(file).read_text().splitlines()
    except (OSError, ValueError) as failed:
        raise Wrong(f"{file} cannot be read: {failed}") from None
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        if not equals or line.endswith("\\"):
            raise Wrong(f"{file}:{number} is no NAME=VALUE of one line")
        value = value.strip()
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[name.strip()] = value[1:-1] if is_quoted else value
    return found


def add_arguments(parser):
    """What each script is told of Redis."""
    parser.add_argument("--redis", metavar="URL", action="append", default=[],
                        help="as redis.url; again for each of redis.shards, in their order")
    parser.add_argument("--prefix", metavar="TEXT", help="redis.prefix, where neither --config nor the environment has it")
    parser.add_argument("--env-file", metavar="FILE",
                        help="variables of a node, such as /etc/fanfare/fanfare.env; they go before those of this shell")


def settings(options):
    """redis.KEY as a node would have it, as a function; and the folder of the configuration."""
    section, folder = {}, pathlib.Path()
    environment = {**os.environ, **(environment_of(options.env_file) if options.env_file else {})}
    if options.config:
        try:
            section = tomllib.loads(pathlib.Path(options.config).read_text()).get("redis", {})
        except (OSError, ValueError) as failed:
            raise Wrong(f"{options.config} cannot be read: {failed}") from None
        folder = pathlib.Path(options.config).resolve().parent
    return lambda key: environment.get(f"FANFARE_REDIS__{key.upper()}") or section.get(key), folder


def deployments(options):
    """What --redis names, or what the configuration or the environment does; and redis.prefix."""
    of, folder = settings(options)

    def file(key):
        return str(folder / of(key)) if of(key) else None

    access = Access(user=of("user"), ca_file=file("tls_ca_file"),
                    certificate_file=file("tls_certificate_file"), key_file=file("tls_key_file"))
    if file("password_file"):
        try:
            access.password = pathlib.Path(file("password_file")).read_text().removesuffix("\n")
        except OSError as failed:
            raise Wrong(f"redis.password_file cannot be used: {failed}") from None
    urls = options.redis
    if not urls:
        shards = of("shards") or []
        shards = shards.split(",") if isinstance(shards, str) else shards
        urls = [url for url in [of("url"), *shards] if url]
    if not urls:
        raise Wrong("no Redis is named: give --redis URL, or --config FILE with redis.url, or --env-file FILE "
                    "with FANFARE_REDIS__URL")
    return [Deployment(url, access) for url in urls], options.prefix or of("prefix") or "ff"


def fingerprints(prefix):
    """The keys by which nodes know a deployment (docs/redis-inside.md). Each cluster has them in each."""
    return f"{{{prefix}:nodes}}:fp", f"{prefix}:fp"


def postgres_access(url):
    """The address without its password, and the environment that has it: a list of processes shows the one
    and not the other."""
    parts = urllib.parse.urlsplit(url)
    if not parts.password:
        return url, dict(os.environ)
    login, _, place = parts.netloc.rpartition("@")
    plain = parts._replace(netloc=f"{login.partition(':')[0]}@{place}")
    return urllib.parse.urlunsplit(plain), {**os.environ, "PGPASSWORD": urllib.parse.unquote(parts.password)}
