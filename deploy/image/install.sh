#!/bin/sh
# Makes the image: PostgreSQL 15, three locales, the user that runs everything.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Documents of packages are of no use in an image.
cat >/etc/dpkg/dpkg.cfg.d/slim <<'END'
path-exclude /usr/share/doc/*
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/locale.alias
END

# The uid of the images that this one takes the place of: volumes keep working.
groupadd --gid 1001 postgres
useradd --uid 1001 --gid 1001 --home-dir /bitnami/postgresql --no-create-home --shell /bin/bash postgres

apt-get update -q
apt-get install -y -q --no-install-recommends locales postgresql-common
# No cluster of Debian's own.
echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
apt-get install -y -q --no-install-recommends postgresql-15

for l in en_US es_GT; do
	localedef -i "$l" -c -f UTF-8 -A /usr/share/locale/locale.alias "$l.UTF-8"
done

apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log /usr/share/i18n/charmaps /usr/share/i18n/locales \
	/usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/lintian /usr/share/postgresql/15/man \
	/usr/lib/postgresql/15/lib/bitcode /var/lib/postgresql

# psql finds the socket where Debian's libpq looks for it.
mkdir -p /bitnami/postgresql /run/manada /manada/secrets /custom-configs /docker-entrypoint-initdb.d /var/lib/pgbackrest /etc/pgbackrest
rm -rf /run/postgresql
ln -s /run/manada /run/postgresql
chown 1001:1001 /bitnami/postgresql /run/manada /manada/secrets /var/lib/pgbackrest
chmod 700 /run/manada /manada/secrets

# The program answers to the names of those that it replaces.
ln -s manada /usr/local/bin/repmgr
ln -s manada /usr/local/bin/pgbackrest
