# The image that is shipped. `cargo run -p e2e --bin image` writes the same without a container engine,
# and a test compares the two. Nothing in it can be written to, and nothing but the program can run.

# On the builder's own platform whatever the target is: nothing is emulated. Its tag is the toolchain's.
FROM --platform=$BUILDPLATFORM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
ARG TARGETARCH
WORKDIR /src
COPY .ci/install-cross .ci/
RUN .ci/install-cross "$TARGETARCH"
COPY . .
# The caches hold what was downloaded and built before, so that only what changed is built again.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    program=$(.ci/build "$TARGETARCH") \
    && install -D --mode=755 "$program" /image/usr/bin/kyma-bindings \
    && install -D --mode=644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
LABEL org.opencontainers.image.title="kyma-bindings" \
      org.opencontainers.image.description="Hands out short-lived kubeconfigs for managed Kyma clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /image /
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/usr/bin/kyma-bindings"]
