#!/usr/bin/env bash
# Tries the image without a container engine: the second stage of the Dockerfile in a clean Debian made by debootstrap, the
# program under runc, as Kubernetes would run it: user 10001, no capabilities, read-only root, the engines' default
# seccomp profile. Prints what the image weighs and how long the program takes.
#
#   docker/try.sh target/release/stoq      as root; apt-get install debootstrap runc golang-github-containers-common jq
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:?which program?}
profile=${SECCOMP_PROFILE:-/usr/share/containers/seccomp.json}
base=${XDG_CACHE_HOME:-$HOME/.cache}/stoq/debian-bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/rootfs

if [ ! -d "$base" ]; then
    debootstrap --variant=minbase bookworm "$base.unfinished" >&2
    mv "$base.unfinished" "$base"
fi
cp -a "$base" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"

# The one RUN step behind the second FROM, as an engine would hand it to a shell.
step=$(awk '/^FROM \$\{DEBIAN\}/ {on = 1} on && /^RUN / {run = 1; sub(/^RUN /, "")} run {print} run && !/\\$/ {exit}' docker/Dockerfile)
SNAPSHOT='' chroot "$root" /bin/sh -c "$step" >&2
install -s -m 755 "$program" "$root/usr/bin/stoq"
cp -r tests/fixtures "$root/samples"

# The profile as engines resolve it: no capability, this machine's kind.
jq '{defaultAction, defaultErrnoRet: (.defaultErrnoRet // 1), architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
     syscalls: [.syscalls[]
       | select((.includes.caps // []) == [])
       | select((.includes.arches // ["amd64"]) | index("amd64"))
       | select((.excludes.arches // []) | index("amd64") | not)
       | {names, action} + (if (.args // []) == [] then {} else {args} end) + (if .errnoRet then {errnoRet} else {} end)]}' \
    "$profile" > "$work/seccomp.json"
(cd "$work" && runc spec)
try() {
    local arguments=$1 name=stoq-try-$$-$RANDOM
    jq --argjson args "$arguments" --slurpfile seccomp "$work/seccomp.json" '
        .process.terminal = false | .process.user = {uid: 10001, gid: 10001} | .process.args = ["/usr/bin/stoq"] + $args
        | .process.noNewPrivileges = true | .process.capabilities |= map_values([]) | .root.readonly = true
        | .process.env = ["PATH=/usr/bin:/bin", "TMPDIR=/var/lib/stoq", "STOQ__SCAN__LANDLOCK_MIN=1"]
        | .mounts += [{destination: "/var/lib/stoq", type: "tmpfs", source: "tmpfs",
                       options: ["nosuid", "nodev", "noexec", "mode=0770", "uid=10001", "gid=10001"]}]
        | .linux.seccomp = $seccomp[0]' "$work/config.json" > "$work/config.json.new"
    mv "$work/config.json.new" "$work/config.json"
    runc run --bundle "$work" "$name"
}
seconds() { local from=$EPOCHREALTIME; "$@" > "$work/out"; awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.2f", b - a}'; }

echo "files of the image, without the samples: $(du -sm --exclude=samples "$root" | cut -f1) MiB, of it stoq $(du -m "$root/usr/bin/stoq" | cut -f1) MiB"
echo "stoq --version, container and all: $(seconds try '["--version"]') s"
echo "a scan of one mail with a nested archive, jail required, Landlock required: $(seconds try '["scan", "--format", "jsonl", "/samples/mail.eml"]') s"
echo "a scan of the samples, jail required, Landlock required: $(seconds try '["scan", "--format", "jsonl", "/samples"]') s"
want=$(find tests/fixtures -type f | wc -l)
have=$(wc -l < "$work/out")
[ "$have" -eq "$want" ] || { echo "$have responses for $want samples" >&2; exit 1; }
grep -q '"ExifToolVersion"' "$work/out" || { echo "ExifTool did not run" >&2; exit 1; }
echo "$have of $want samples were scanned; ExifTool ran in its jail"
