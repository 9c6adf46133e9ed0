# A static binary and nothing else: no shell, no package, no user database.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse --short=12 HEAD) \
#     --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) --tag registry.example.com/segprobe:0.1.0 --push .
#
# The compiler runs on the builder's own platform and compiles for the target's: no emulation.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-bookworm AS build
ARG TARGETARCH
RUN apt-get update -q && apt-get install -y -q --no-install-recommends crossbuild-essential-amd64 crossbuild-essential-arm64
WORKDIR /src
COPY . .
ARG REVISION=unknown
ARG SOURCE_DATE_EPOCH
RUN SEGPROBE_REVISION=$REVISION ./.ci/static "$TARGETARCH" /out

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="segprobe" \
      org.opencontainers.image.description="Proves, continuously and from every node, that low-security Kubernetes workloads cannot reach or enumerate high-security services" \
      org.opencontainers.image.source="https://github.com/segprobe/segprobe" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/segprobe /segprobe
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 11450/tcp
ENTRYPOINT ["/segprobe"]
