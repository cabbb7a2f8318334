#!/bin/sh
# rootfs.sh BUSYBOX DIRECTORY: the tree of a busybox image. Also used by tests/run, where there is no builder yet.
set -eu
mkdir -p "$2"
cd "$2"
mkdir -p bin etc dev proc sys root home usr/bin var/spool tmp
chmod 1777 tmp
chmod 700 root
cp "$1" bin/busybox
chmod 755 bin/busybox
# Debian's build counts itself among its applets.
for name in $("$1" --list); do [ "$name" = busybox ] || ln -s busybox "bin/$name"; done
ln -s ../../bin/env usr/bin/env
cat >etc/passwd <<'P'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
P
cat >etc/group <<'P'
root:x:0:
daemon:x:1:
nobody:x:65534:
P
