# syntax=docker/dockerfile:1
# All workers, and the operator's command, by one recipe: docker build --target llm-worker --tag jm-mq/llm-worker .
# A release is told by --build-arg VERSION=… REVISION=…; embedded engines by --build-arg FEATURES=embedded.

ARG RUST=docker.io/library/rust:1.95-bookworm
# glibc, libgcc, CA certificates, time zones and a user; no shell, no package manager.
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

# Dependencies are built apart from our code, so that a change of ours builds only ours.
FROM ${RUST} AS chef
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
ARG FEATURES=""
# A new worker is a line here and a stage below.
ENV PACKAGES="\
    --package asr-worker \
    --package embed-worker \
    --package jm-cli \
    --package llm-worker \
    --package record-event-worker \
    --package sd-worker"
COPY --from=plan /src/recipe.json .
# hadolint ignore=SC2086
RUN cargo chef cook --release --locked ${PACKAGES} --features "${FEATURES}" --recipe-path recipe.json
COPY . .
# After the dependencies, so that another revision does not build them anew.
ARG REVISION=unknown
# For jm_build_info.
ENV JM_REVISION=${REVISION}
# hadolint ignore=SC2086
RUN cargo build --release --locked ${PACKAGES} --features "${FEATURES}" \
    && mkdir /out && cp target/release/*-worker target/release/jm /out/

FROM ${RUNTIME} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="jm-mq" \
      org.opencontainers.image.description="A worker of jm-mq" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What the binaries are made of, for scanners that read it.
COPY Cargo.lock /usr/share/doc/jm-mq/Cargo.lock
# The same number as in k8s/: a name would not tell Kubernetes that it is not root.
USER 65532:65532
# Where a worker may write, if a volume is mounted there. The root is read-only.
WORKDIR /var/lib/jm
EXPOSE 9090
STOPSIGNAL SIGTERM

FROM runtime AS asr-worker
COPY --from=build /out/asr-worker /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/asr-worker"]

FROM runtime AS embed-worker
COPY --from=build /out/embed-worker /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/embed-worker"]

FROM runtime AS jm
LABEL org.opencontainers.image.description="The operator's command of jm-mq"
COPY --from=build /out/jm /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/jm"]

FROM runtime AS llm-worker
COPY --from=build /out/llm-worker /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/llm-worker"]

FROM runtime AS record-event-worker
COPY --from=build /out/record-event-worker /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/record-event-worker"]

FROM runtime AS sd-worker
COPY --from=build /out/sd-worker /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/sd-worker"]
