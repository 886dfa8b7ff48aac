# Installs packages of Debian. Read with `.` by scripts that have a function `say`.

# need_apt WHAT: ends the script where packages cannot be installed.
need_apt() {
    if ! command -v apt-get >/dev/null; then
        say "no $1 found, and no apt-get to install it with. Install it, then try again."
        exit 1
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "cannot run '$*': neither root nor sudo. Install it in another way, then try again."
        exit 1
    fi
}

# apt_install PACKAGE...
apt_install() {
    as_root apt-get update
    # ucf keeps files that were put there before, without a question.
    as_root env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 \
        apt-get install -y --no-install-recommends "$@"
}
