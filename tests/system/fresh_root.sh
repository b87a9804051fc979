#!/usr/bin/env bash
# The README's two commands on a machine that has python3, make and git, nothing else: a root made by mmdebstrap with
# this machine's apt and pip configuration, in namespaces of its own, removed afterwards.
#
#   tests/system/fresh_root.sh [--suite NAME] [--captures DIR] [COMMAND ...]
#
# COMMAND: what to run in a fresh clone, by default "make demo", "make demo" again, "make test". --captures DIR shows recorded
# frames (read-only) to the tests that want them. Each line is shown with the seconds since its command began.
# Runs as root, with mmdebstrap and util-linux's unshare.
set -euo pipefail

repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
own_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
suite=$own_suite
captures=
while [[ ${1-} == --* ]]; do
    case $1 in
        --suite) suite=$2 ;;
        --captures) captures=$(realpath "$2") ;;
        *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
[[ $# -gt 0 ]] || set -- "make demo" "make demo" "make test"

if [[ -z ${MDC_FRESH_ROOT-} ]]; then
    work=$(mktemp -d /var/tmp/mdc-fresh-root.XXXXXX)
    trap 'rm -rf --one-file-system "$work"' EXIT
    # What is mounted in there, and whatever still runs in there, ends with these namespaces.
    MDC_FRESH_ROOT=$work/root unshare --mount --pid --fork --kill-child \
        "$0" --suite "$suite" ${captures:+--captures "$captures"} "$@"
    exit
fi

root=$MDC_FRESH_ROOT
echo "== $suite with python3, make and git, by mmdebstrap"
sources=$(dirname "$root")/sources
mkdir "$sources"
find /etc/apt \( -name '*.sources' -o -name '*.list' \) -exec cp -t "$sources" {} +
sed -i "s/\b$own_suite\b/$suite/g" "$sources"/*
mmdebstrap --quiet --variant=minbase --include=python3,make,git "$suite" "$root" "$sources"/*

# This machine's way to its package registries.
copy() { for path; do [[ ! -e $path ]] || { mkdir -p "$root$(dirname "$path")" && cp -aL "$path" "$root$(dirname "$path")"; }; done; }
rm -rf "$root/etc/apt"
copy /etc/apt /usr/share/keyrings /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" "$HOME/.pip"
find "$root/etc/apt" \( -name '*.sources' -o -name '*.list' \) -exec sed -i "s/\b$own_suite\b/$suite/g" {} +
copy /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates
environment=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "TERM=${TERM:-dumb}")
while IFS= read -r -d '' pair; do
    case $pair in PIP_* | SSL_CERT_FILE=* | [Hh][Tt][Tt][Pp]*_[Pp]* | [Nn][Oo]_[Pp]*) environment+=("$pair") ;; esac
done < <(env -0)

show() { mkdir -p "$root$2" && mount --bind -o ro "$1" "$root$2" && mount -o remount,bind,ro "$root$2"; }
mount --bind "$root" "$root"  # a mount of its own, as a machine's root is
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=4g tmpfs "$root/dev/shm"
show "$repository" /mnt/repository
# Package indexes that pip's configuration has on this machine's disk.
for place in $(cat "$root/etc/pip.conf" "$root"/etc/xdg/pip/*.conf 2>/dev/null | grep -oE 'file:///[^ ]+' | cut -c8-) ${PIP_FIND_LINKS-}; do
    [[ ! -d $place ]] || show "$place" "$place"
done
[[ -z $captures ]] || { show "$captures" /mnt/captures && environment+=(MDC_CAPTURES=/mnt/captures); }

inside() { env -i "${environment[@]}" chroot "$root" bash -c "$1"; }
stamped() { local began=$EPOCHREALTIME line; while IFS= read -r line; do printf '%7.2f s | %s\n' "$(seconds_since "$began")" "$line"; done; }
seconds_since() { local now=$EPOCHREALTIME; echo "$(((${now/./} - ${1/./}) / 10000))e-2"; }

inside 'git -c safe.directory=* clone --quiet /mnt/repository /root/mdc'
for command; do
    printf '\n== %s\n' "$command"
    began=$EPOCHREALTIME
    status=0
    inside "cd /root/mdc && $command 2>&1" < /dev/null | stamped || status=$?
    printf '== %s: exit status %d after %.1f s\n' "$command" "$status" "$(seconds_since "$began")"
    [[ $status -eq 0 ]] || exit "$status"
done
