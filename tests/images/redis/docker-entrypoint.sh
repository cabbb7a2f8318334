#!/bin/sh
# The contract of the public image: options or a configuration file alone start the server, root becomes redis,
# and other containers may connect without a password (Debian's build would refuse: "protected mode").
set -eu

case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "${1:-}" = redis-server ]; then
  if [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis:redis {} +
    exec setpriv --reuid redis --regid redis --init-groups "$0" "$@"
  fi
  # What redis writes is for redis alone, unless the user chose another mask.
  [ "$(umask)" != 0022 ] || umask 0077
  configuration=/dev/null
  case ${2:-} in *.conf) configuration=$2 ;; esac
  if ! printf '%s\n' "$@" | grep -q protected-mode && ! grep -qs '^ *protected-mode' "$configuration"; then
    set -- "$@" --protected-mode no
  fi
fi
exec "$@"
