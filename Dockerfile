# The one image of Manada: PostgreSQL 15 of Debian 12 and the program.
#
#   docker build -t manada:15 .    compiles the program (BuildKit; images are pulled)
#   make image                     takes bin/manada: works anywhere, see deploy/image/README.md
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS runtime
COPY deploy/image/install.sh /tmp/install.sh
RUN sh /tmp/install.sh && rm /tmp/install.sh
ENV LANG=C.UTF-8 \
    PSQL_PAGER="" \
    MANADA_CONFIG=/bitnami/postgresql/manada.yaml \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin
VOLUME ["/bitnami/postgresql"]
EXPOSE 5432 7400
# It is PID 1: SIGTERM stops the host in order, PostgreSQL with it.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["manada", "health"]
ENTRYPOINT ["manada"]
CMD ["container"]

FROM runtime AS host
COPY bin/manada /usr/local/bin/manada
COPY LICENSE THIRD-PARTY-NOTICES /usr/share/doc/manada/

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X manada/internal/cli.version=${VERSION}" -o /manada ./cmd/manada

FROM runtime
COPY --from=build /manada /usr/local/bin/manada
COPY LICENSE THIRD-PARTY-NOTICES /usr/share/doc/manada/
