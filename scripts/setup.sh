#!/bin/sh
# Sets up .venv for `make test` (setup.sh test) or `make demo` (setup.sh demo), system packages included where they
# may be installed. Returns at once where that is done for the present pyproject.toml, constraints.txt and Python.
#
# PYTHON=...           interpreter for a new .venv; without it, the newest suitable one found
# TORCH_INDEX_URL=...  further package index to look for torch in, for example PyTorch's own for CPU-only builds
set -eu
cd "${0%/*}/.."

OLDEST=11 # Python 3.11, as in pyproject.toml
NEWEST=14 # the newest for which the pinned torch is built

case "${1:-}" in
    test) EXTRAS=all,bioimageio,demo,onnx GROUPS_WANTED="--group dev" ;;
    demo) EXTRAS=all GROUPS_WANTED= ;;
    *) echo "usage: scripts/setup.sh test|demo" >&2; exit 2 ;;
esac
GOAL=$1

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# --- system packages ----------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

install_system() { # package...
    may_install || return 1
    say "installing system packages: $*"
    as_root apt-get -qq update </dev/null >/dev/null || say "the package lists could not be refreshed; going on with the old"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 install "$@" </dev/null >/dev/null
}

# Prints the Debian packages that are missing of those a Qt window (and, for tests, a display to put it on) needs.
missing_for_windows() {
    if [ "$GOAL" = test ]; then
        command -v xvfb-run >/dev/null || echo xvfb
        command -v xauth >/dev/null || echo xauth
    fi
    libraries=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null) || return 0
    while read -r library package; do
        case "$libraries" in *"$library "*) ;; *) echo "$package" ;; esac
    done <<LIBRARIES
libEGL.so.1 libegl1
libGL.so.1 libgl1
libOpenGL.so.0 libopengl0
libglib-2.0.so.0 libglib2.0-0
libdbus-1.so.3 libdbus-1-3
libfontconfig.so.1 libfontconfig1
libxkbcommon-x11.so.0 libxkbcommon-x11-0
libxcb-cursor.so.0 libxcb-cursor0
libxcb-icccm.so.4 libxcb-icccm4
libxcb-image.so.0 libxcb-image0
libxcb-keysyms.so.1 libxcb-keysyms1
libxcb-randr.so.0 libxcb-randr0
libxcb-render-util.so.0 libxcb-render-util0
libxcb-shape.so.0 libxcb-shape0
libxcb-xfixes.so.0 libxcb-xfixes0
libxcb-xinerama.so.0 libxcb-xinerama0
libxcb-xinput.so.0 libxcb-xinput0
LIBRARIES
}

set_up_windows() {
    [ "$(uname)" = Linux ] || return 0
    # without a display the demo opens no window
    [ "$GOAL" = test ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || return 0
    missing=$(missing_for_windows | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086
    install_system $missing || say "windows cannot be shown: please install $missing"
}

# --- Python -------------------------------------------------------------------------------------------------

# Prints the newest suitable interpreter that can import the given modules, or nothing.
newest_python() { # modules
    best='' best_minor=0
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        minor=$("$candidate" -c "import sys, $1; print(sys.version_info[1])" 2>/dev/null) || continue
        if [ "$minor" -ge $OLDEST ] && [ "$minor" -le $NEWEST ] && [ "$minor" -gt "$best_minor" ]; then
            best=$candidate best_minor=$minor
        fi
    done
    echo "$best"
}

# Prints an interpreter that can make a virtual environment; on Debian that part of Python is a package of its own.
find_python() {
    needed=bz2,ctypes,lzma,ssl,venv,zlib
    python=$(newest_python $needed,ensurepip)
    if [ -z "$python" ]; then
        python=$(newest_python $needed)
        if [ -z "$python" ]; then
            found=$("${PYTHON:-python3}" -c 'import platform; print(platform.python_version())' 2>/dev/null) || found=none
            die "Python 3.$OLDEST or newer (up to 3.$NEWEST, with ssl, bz2 and lzma) is needed; found $found"
        fi
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        install_system "$package" && "$python" -c 'import ensurepip' 2>/dev/null \
            || die "$python cannot make a virtual environment: please install the system package $package"
    fi
    echo "$python"
}

# Succeeds where .venv holds a Python that runs and is recent enough.
venv_works() {
    .venv/bin/python -c "import sys, pip; sys.exit(sys.version_info < (3, $OLDEST))" 2>/dev/null
}

# What the content of .venv follows from.
fingerprint() {
    cat pyproject.toml constraints.txt scripts/setup.sh | cksum
    .venv/bin/python -VV 2>&1
    echo "$PWD ${TORCH_INDEX_URL:-}"
}

set_up_venv() {
    stamp=.venv/set-up-for-$GOAL
    if venv_works; then
        [ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint)" ] || return 0
    else
        python=$(find_python)
        say "making .venv with $("$python" -V)"
        "$python" -m venv --clear .venv
    fi
    say "installing into .venv; the first time takes some minutes"
    # dependency groups came with pip 25.1
    .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1' </dev/null
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install --quiet --constraint constraints.txt \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
        --editable ".[$EXTRAS]" $GROUPS_WANTED </dev/null
    fingerprint >"$stamp"
    # the tests' environment holds all that the demo needs
    [ "$GOAL" = demo ] || cp "$stamp" .venv/set-up-for-demo
}

set_up_venv
set_up_windows
