#!/usr/bin/env bash
# Installs the programs of the machine's own that tests and the development cluster use. As root on Debian or Ubuntu;
# elsewhere it names what is missing and what to type, and fails.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
ldconfig -p 2>/dev/null | grep -q 'libseccomp\.so\.2' || missing+=(libseccomp2)
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || [ -n "$(ls "${XDG_CACHE_HOME:-$HOME/.cache}"/millrace/kafka-*/complete 2>/dev/null)" ] || missing+=(maven)
command -v npm >/dev/null || missing+=(npm)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Whatever Java this release calls its default: 17 or newer everywhere we know.
    apt-get install -qq -y --no-install-recommends "${missing[@]/openjdk-17-jre-headless/default-jre-headless}" >/dev/null
    exit 0
fi
echo "These programs are missing: ${missing[*]}" >&2
if command -v apt-get >/dev/null; then
    echo "Install them: sudo apt-get install ${missing[*]}" >&2
elif command -v brew >/dev/null; then
    echo "Install them: brew install redis openjdk@17 maven node (the jail itself needs Linux)" >&2
else
    echo "Install Redis 7, Java 17, Maven 3.8, npm 9 and libseccomp 2.5 (or newer) with your package manager." >&2
fi
exit 1
