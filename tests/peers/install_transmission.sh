#!/usr/bin/env bash
# Unpack Transmission 4 with its libraries, from Debian 13, below the folder $1; nothing is installed on the system.
# Debian 12 itself has 3.00, which reads no hybrid torrents.
set -euo pipefail
rm -rf "$1"
mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial" "$1/bin"
cd "$1"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Release: bookworm' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >apt/sources.list
: >apt/status # as on a system without any package: the libraries come as well, libc among them
own=(-qq -o "Dir::State=$PWD/apt" -o "Dir::State::status=$PWD/apt/status" -o "Dir::Cache=$PWD/apt"
  -o "Dir::Etc::sourcelist=$PWD/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null)
apt-get "${own[@]}" update
apt-get "${own[@]}" install -y --download-only --no-install-recommends transmission-cli >/dev/null
for package in apt/archives/*.deb; do dpkg-deb --extract "$package" .; done
rm -r apt
cat >bin/transmission-cli <<'SH'
#!/bin/sh
root=$(dirname "$0")/..
libraries=$root/usr/lib/$(uname -m)-linux-gnu
exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$root/usr/bin/transmission-cli" "$@"
SH
chmod +x bin/transmission-cli
bin/transmission-cli --version
