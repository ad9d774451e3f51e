#!/bin/sh
# Unpacks Debian trixie's QEMU (10.0) beside the system's, for the capture suite: nothing is installed, nothing of the
# system changes. Usage: setup/qemu-trixie.sh TARGET. Does nothing when TARGET is complete. About 40 MB, seconds.
set -eu

target=${1:?usage: setup/qemu-trixie.sh TARGET}
[ -e "$target/complete" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
: >"$work/status"

# The mirror this machine already uses, with the suite's name changed. Signed by Debian's archive key as ever.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
  sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' | grep '/debian/*$' | head -n 1)
[ -n "$mirror" ] || { echo "setup/qemu-trixie.sh: no Debian mirror found under /etc/apt; add one to sources.list" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
CONF
apt-get -q -c "$work/apt.conf" update >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
apt-get -q -y -c "$work/apt.conf" --download-only install qemu-system-x86 ovmf >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

rm -rf "$target"
mkdir -p "$target/root"
for package in "$work"/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$target/root" --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale; done
root=$target/root
libs=$(find "$root/usr/lib" -name '*.so*' -path '*linux-gnu*' -printf '%h\n' | sort -u | grep -v -e /gconv -e /perl | tr '\n' ':')
# One program that starts it with its own loader, libraries and data.
cat >"$target/qemu-system-x86_64" <<RUN
#!/bin/sh
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libs" "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "\$@"
RUN
chmod 755 "$target/qemu-system-x86_64"
"$target/qemu-system-x86_64" --version | head -n 1
touch "$target/complete"
