#!/bin/bash
# The contract of the public image: POSTGRES_{USER,PASSWORD,DB,INITDB_ARGS,HOST_AUTH_METHOD}, each also as …_FILE,
# PGDATA, and /docker-entrypoint-initdb.d, which runs once, against a private server on the socket only.
set -euo pipefail

fail() { echo "docker-entrypoint: $*" >&2; exit 1; }

# from_file NAME [DEFAULT]: NAME, or the content of the file that NAME_FILE names.
from_file() {
  local name=$1 file=$1_FILE
  [ -z "${!name:-}" ] || [ -z "${!file:-}" ] || fail "both $name and $file are set"
  if [ -n "${!file:-}" ]; then export "$name=$(cat "${!file}")"; else export "$name=${!name:-${2:-}}"; fi
  unset "$file"
}

own_directories() {
  mkdir -p "$PGDATA" /run/postgresql
  chmod 700 "$PGDATA"
  find "$PGDATA" /run/postgresql \! -user postgres -exec chown postgres:postgres {} +
}

make_cluster() {
  local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [ -z "$POSTGRES_PASSWORD" ] && [ "$method" != trust ]; then
    fail "the database is empty and no superuser password is given: set POSTGRES_PASSWORD (or, for anyone to connect, POSTGRES_HOST_AUTH_METHOD=trust)"
  fi
  # Word splitting is the variable's documented meaning.
  # shellcheck disable=SC2086
  initdb --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") \
    --auth-local=trust --auth-host=trust ${POSTGRES_INITDB_ARGS:-}
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

sql() { psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --quiet "$@"; }

run_scripts() {
  local script
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh) echo "docker-entrypoint: running $script"
        # An executable one in a shell of its own, another one in this shell.
        # shellcheck disable=SC1090
        if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
      *.sql) echo "docker-entrypoint: running $script"; sql --dbname "$POSTGRES_DB" --file "$script" ;;
      *.sql.gz) echo "docker-entrypoint: running $script"; gunzip --stdout "$script" | sql --dbname "$POSTGRES_DB" ;;
      */\*) ;;
      *) echo "docker-entrypoint: ignoring $script" ;;
    esac
  done
}

initialise() {
  from_file POSTGRES_PASSWORD
  from_file POSTGRES_USER postgres
  from_file POSTGRES_DB "$POSTGRES_USER"
  from_file POSTGRES_INITDB_ARGS
  make_cluster
  PGPASSWORD=$POSTGRES_PASSWORD
  export PGPASSWORD
  pg_ctl --silent --wait --options "-c listen_addresses='' $*" start
  if [ "$POSTGRES_DB" != postgres ]; then
    sql --dbname postgres --set name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
  fi
  run_scripts
  pg_ctl --silent --wait --mode fast stop
  unset PGPASSWORD
}

case ${1:-} in -*) set -- postgres "$@" ;; esac
if [ "${1:-}" = postgres ]; then
  if [ "$(id -u)" = 0 ]; then
    own_directories
    exec setpriv --reuid postgres --regid postgres --init-groups "$BASH_SOURCE" "$@"
  fi
  [ -s "$PGDATA/PG_VERSION" ] || initialise "${@:2}"
fi
exec "$@"
