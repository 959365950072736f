#!/usr/bin/env bash
# Download Python's documentation (a Debian package, Python licence) and unpack its plain text into the folder given.
# The programs needed are apt-get (after apt-get update) and dpkg-deb; nothing is installed. Another package with sources
# of Sphinx may be named, for example linux-doc-6.1 (24 MB of text).
set -euo pipefail
folder=$(realpath -m "${1:?usage: fetch.sh FOLDER [PACKAGE]}")
# python3-doc itself is empty and depends on the documentation of the release's version.
package=${2:-$(apt-cache depends python3-doc | sed -n 's/.*Depends: //p')}
mkdir -p "$folder"
cd "$folder"
if [ -e package.txt ]; then
    # With the same package, nothing is to be done, so that a command after this one can be repeated.
    [[ $(cat package.txt) == "$package "* ]] && exit
    echo "$folder: contains $(cat package.txt) already; name another folder" >&2
    exit 1
fi
rm -f "$package"_*.deb
apt-get download "$package"
dpkg-deb --fsys-tarfile "$package"_*.deb | tar x --wildcards '*/_sources/*.rst.txt' "./usr/share/doc/$package/copyright"
dpkg-deb --show --showformat '${Package} ${Version}\n' "$package"_*.deb > package.txt
