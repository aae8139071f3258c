# The programs in one image: order-producer and order-consumer, as a user without rights, over a root that may be read-only.
#   docker build -t order-pipeline:0.1.0 --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .
# Dependencies are compiled into cache mounts, so that an edit compiles what it touches: BuildKit is needed.
# The compiler of rust-toolchain.toml, which stays outside: for its sake rustup would fetch the linter and the formatter too.
ARG RUST=1.95.0
ARG DEBIAN=bookworm

FROM rust:${RUST}-${DEBIAN} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake libssl-dev libzstd-dev pkg-config protobuf-compiler zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Line tables triple the image; incremental files are for a desk.
ENV CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_INCREMENTAL=false CARGO_PROFILE_RELEASE_STRIP=true
# Cargo goes by times, and the cache outlives the tree: a tree older than what was built last would get the programs of that.
# So every file is old here, but for those whose contents were not built last, which are new.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec sha256sum {} + >/tmp/sources \
 && touch target/sources && mv target/sources /tmp/built \
 && cut --characters=67- /tmp/sources | xargs --delimiter='\n' touch --date=2001-01-01 \
 && grep --invert-match --line-regexp --fixed-strings --file=/tmp/built /tmp/sources \
  | cut --characters=67- | xargs --delimiter='\n' --no-run-if-empty touch \
 && cargo build --release --locked --package producers --package consumers --bins \
 && cp /tmp/sources target/sources \
 && install -D --target-directory=/out target/release/order-producer target/release/order-consumer

FROM debian:${DEBIAN}-slim AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin orders
COPY --chmod=755 deploy/container/ready /usr/local/bin/ready
COPY --from=build /out/ /usr/local/bin/
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="order-pipeline" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
ENV LOG_FORMAT=json
STOPSIGNAL SIGTERM
CMD ["order-consumer", "--help"]
