# The one image of Manada: PostgreSQL 15 of Debian 12 and the program.
#
#   docker build -t manada:15 .        where images can be pulled
#   make image                         anywhere on Debian 12: see deploy/image/README.md
#
# BINARY=host takes bin/manada of this folder instead of compiling it here; the
# stage that is not used is not built (BuildKit).
ARG BASE=debian:bookworm-slim
ARG BINARY=build

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X manada/internal/cli.version=${VERSION}" -o /manada ./cmd/manada

FROM scratch AS host
COPY bin/manada /manada

FROM ${BINARY} AS binary

FROM ${BASE}
COPY deploy/image/install.sh /tmp/install.sh
RUN sh /tmp/install.sh && rm /tmp/install.sh
COPY --from=binary /manada /usr/local/bin/manada
ENV LANG=C.UTF-8 \
    MANADA_CONFIG=/bitnami/postgresql/manada.yaml \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin
VOLUME ["/bitnami/postgresql"]
EXPOSE 5432 7400
# It is PID 1: SIGTERM stops the host in order, PostgreSQL with it.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["manada", "health"]
ENTRYPOINT ["manada"]
CMD ["container"]
