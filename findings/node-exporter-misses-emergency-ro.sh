#!/usr/bin/env bash
# After an error ext4 makes a file system read-only (errors=remount-ro). Newer kernels do so without the mount option `ro`:
# /proc/mounts of Linux 6.18 shows `rw,relatime,emergency_ro`. Debian's node_exporter looks for `ro` alone, and reports a file
# system as writable to which nothing can be written (touch: Read-only file system); 1.12.1 knows the new word. The mount
# table below is what a loop device had after `echo 1 > /sys/fs/ext4/loop0/trigger_fs_error`.
set -euo pipefail
folder=$(mktemp -d)
cd "$folder"
apt-get update -qq
apt-get -o APT::Sandbox::User=root download -qq prometheus-node-exporter
dpkg-deb --show --showformat '${Package} ${Version}\n' ./*.deb
dpkg-deb --extract ./*.deb .
mkdir -p proc/1 data plain
printf '/dev/loop0 %s ext4 rw,relatime,emergency_ro 0 0\n/dev/loop1 %s ext4 ro,relatime 0 0\n' "$folder/data" "$folder/plain" > proc/1/mounts
printf '64 27 7:%s / %s %s,relatime - ext4 /dev/loop%s %s\n' \
  0 "$folder/data" rw 0 rw,emergency_ro 1 "$folder/plain" ro 1 ro > proc/1/mountinfo
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
usr/bin/prometheus-node-exporter --web.listen-address="127.0.0.1:$port" --path.procfs="$folder/proc" \
  --collector.disable-defaults --collector.filesystem --collector.filesystem.mount-points-exclude='^$' > log 2>&1 &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
until curl -sf "http://127.0.0.1:$port/metrics" > metrics; do sleep 0.2; done
read_only() { sed -n "s|^node_filesystem_readonly{.*/$1\"} ||p" metrics; }
echo "expected: node_filesystem_readonly 1 for both, ro and emergency_ro"
echo "seen:     $(read_only plain) for ro, $(read_only data) for emergency_ro"
[ "$(read_only plain) $(read_only data)" = "1 0" ]
