# The three programs in one image, for a user that is not root. Building it needs no secrets:
#
#     docker build --tag device-streams .
#     docker run --rm device-streams device-proxy --help
#
# compose.yaml shows all of them at work.

FROM rust:1-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# Puts the list of dependencies into the programs.
COPY packaging/with-sbom packaging/
RUN cargo install --locked "$(packaging/with-sbom --needs)"
COPY . .
# `dist` is what is shipped; `--build-arg PROFILE=release` is built in less time.
ARG PROFILE=dist
RUN packaging/build-release --profile "$PROFILE" -p device-proxy -p hub -p service-proxy \
    && for program in stream-hub device-proxy service-proxy; do \
        install -D -t /programs "target/$PROFILE/$program" || exit 1; \
    done

# What compose.yaml has a device forward to: an sshd whose keys are made when it starts.
FROM debian:bookworm-slim AS demo-sshd
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && useradd --create-home --shell /bin/bash ada \
    && install -d -m 755 /run/sshd
CMD ["sh", "-ec", "\
    ssh-keygen -A; \
    test -e ~/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; \
    install -D -m 644 ~/.ssh/id_ed25519.pub /home/ada/.ssh/authorized_keys; \
    exec /usr/sbin/sshd -D -e"]

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --user-group --uid 10001 --create-home streams \
    && install -d -o streams -g streams -m 700 \
        /var/lib/stream-hub /home/streams/.config/device-streams \
        /home/streams/codes
COPY --from=build /programs/ /usr/local/bin/
USER streams
WORKDIR /home/streams
# Volumes for /var/lib/stream-hub and ~/.config/device-streams keep the hub's data, and what
# `device-proxy enrol` or `service-proxy login` has written.
ENV STREAM_HUB_DATA_DIR=/var/lib/stream-hub
CMD ["stream-hub", "serve"]
