# Fanfare as an image: one program on a base without a shell. docs/deployment.md tells how to run it.
#
#   docker build -t fanfare:0.1.0 .                              compiles here (podman and buildah
#                                                                want --build-arg BINARY=build)
#   scripts/dist && docker build -t fanfare:0.1.0 --build-arg BINARY=prebuilt .
#                                                                takes target/dist/fanfare as it is
#   docker build --target debug --output target/dist .           the debug file of the first
#
# A release names both bases by digest, which nothing can move:
#   --build-arg RUST_IMAGE=NAME@sha256:… --build-arg BASE_IMAGE=NAME@sha256:…
ARG RUST_IMAGE=docker.io/library/rust:1.90-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG BINARY=build

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
ARG BUILD_COMMIT=unknown
# Crates and what was compiled stay between builds, so a change compiles only what it touches.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    BUILD_COMMIT="${BUILD_COMMIT}" scripts/dist && \
    install -D -t /out target/dist/fanfare target/dist/fanfare.debug

FROM scratch AS debug
COPY --from=build /out/fanfare.debug /fanfare.debug

FROM scratch AS prebuilt
COPY target/dist/fanfare /out/fanfare

FROM ${BINARY} AS program

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG BUILD_COMMIT=unknown
LABEL org.opencontainers.image.title="Fanfare" \
      org.opencontainers.image.description="A realtime gateway: any node delivers to any user, and nothing accepted is lost in silence." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/fanfare/fanfare" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${BUILD_COMMIT}"
COPY --from=program --chmod=0755 /out/fanfare /usr/local/bin/fanfare
# As a number, or Kubernetes could not see that it is not root.
USER 65532:65532
# Clients; the API, which is never public; metrics, where metrics.listen says so.
EXPOSE 8080 8081 9090
STOPSIGNAL SIGTERM
# It asks where api.listen says. A configuration file is found by FANFARE_CONFIG, as serve finds it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/fanfare", "health", "live"]
ENTRYPOINT ["/usr/local/bin/fanfare"]
CMD ["serve"]
