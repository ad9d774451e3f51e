#!/bin/sh
# sh setup/run.sh quickstart|install|prepare|test|long|bench [ARGUMENTS]
# Says what will be installed, installs what is missing, and runs it.
set -eu
umask 022
setup=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$setup")
node="$repo/node_modules/.bin/node"
# mkfs.ext4, debugfs and their like are not in an ordinary user's PATH
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH
. "$setup/lib.sh"

mode=${1:-}
[ $# -eq 0 ] || shift
case "$mode" in
  quickstart | install) groups="run" ;;
  prepare | test | long | bench) groups="run test" ;;
  *) die "usage: sh setup/run.sh quickstart|install|prepare|test|long|bench" ;;
esac

# install_service PROGRAM: configuration, folders and units for a service in earnest; never overwrites a configuration.
install_service() {
  [ -e /etc/stillpoint/config.yaml ] ||
    install -D -o root -g stillpoint -m 0640 "$setup/config.example.yaml" /etc/stillpoint/config.yaml
  for folder in repository keys capture pools pools/main; do
    install -d -o stillpoint -g stillpoint -m 0700 "/var/lib/stillpoint/$folder"
  done
  install -D -m 0644 -t /etc/systemd/system "$repo/systemd/stillpoint-guard.service" "$repo/systemd/stillpoint.service"
  ln -sfn /opt/stillpoint/current/bin/stillpoint /usr/local/bin/stillpoint
  say "installed in $1; the configuration is /etc/stillpoint/config.yaml"
  say "to start it: systemctl daemon-reload && systemctl enable --now stillpoint-guard stillpoint"
}

announce() {
  missing=$(missing_packages $groups)
  if [ -n "$missing" ]; then
    say "these Debian packages will be installed with apt-get:"
    describe_packages $missing
  fi
  modules_are_current || say "npm packages will be installed into $repo/node_modules"
  if is_root; then
    id -u stillpoint >/dev/null 2>&1 || say "an unprivileged user 'stillpoint' will be made (no shell, no password)"
    case "$mode" in
      quickstart | install) say "the program goes to /opt/stillpoint, its data to /var/lib/stillpoint" ;;
    esac
  fi
}

announce
case "$mode" in
  quickstart | install)
    is_root || die "Installing needs root; afterwards nothing runs as root." "run: sudo sh setup/run.sh $mode"
    ;;
esac
ensure_packages $groups
ensure_modules
if is_root; then ensure_user; fi

case "$mode" in
  install)
    program=$("$node" "$setup/install.ts" --current)
    install_service "$program"
    ;;
  quickstart)
    "$node" "$setup/guest/build.ts"
    program=$("$node" "$setup/install.ts")
    # from here on nothing is root
    cd /
    exec setpriv --reuid stillpoint --regid stillpoint --init-groups env HOME=/var/lib/stillpoint \
      "$program/node_modules/.bin/node" "$program/src/programs/quickstart.ts" "$@"
    ;;
  prepare)
    "$node" "$setup/guest/build.ts"
    ;;
  bench)
    cd "$repo"
    exec "$node" bench/run.ts "$@"
    ;;
  test | long)
    "$node" "$setup/guest/build.ts"
    cd "$repo"
    exec "$node" "$setup/test.ts" "$mode" "$@"
    ;;
esac
