# Supervises one private PostgreSQL cluster. Run by tests/support/postgres.rs as an unprivileged user.
#
# Without an argument the cluster is a fresh one. "primary" makes a fresh one that standbys can follow, and
# "standby PORT" makes one that follows the cluster at that port of this machine.
#
# Standard input is a pipe that the test process holds open. Each line of it is a command, each
# command gets one line on standard output. When the pipe ends, however the test process did, the
# cluster is stopped and its folder removed.

# The signals of a terminal or a CI runner must not keep the end of the pipe from being handled.
trap '' HUP INT TERM

# find_folder PROGRAM...: where all of these are
find_folder() {
    on_path=$(command -v "$1")
    for folder in "${on_path%/*}" $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) \
        "$(pg_config --bindir 2>/dev/null)"; do
        for program in "$@"; do
            [ -x "$folder/$program" ] || continue 2
        done
        echo "$folder" && return
    done
    return 1
}

if ! binaries=$(find_folder initdb postgres); then
    echo "missing"
    exit 1
fi
for parent in "${TMPDIR:-/tmp}" /tmp; do
    folder=$(mktemp -d "$parent/identity-postgres.XXXXXX" 2>/dev/null) && break
done
if [ -z "$folder" ]; then
    echo "failed to make a folder in ${TMPDIR:-/tmp}"
    exit 1
fi
log="$folder/log"
data="$folder/data"
exec 2>>"$log"
server=

# copy PORT
copy() {
    clients=$(find_folder pg_basebackup) || return
    "$clients/pg_basebackup" --pgdata="$data" --no-sync --checkpoint=fast --wal-method=stream \
        --write-recovery-conf --dbname="host=127.0.0.1 port=$1 user=identity" >>"$log" </dev/null
}

initialise() {
    "$binaries/initdb" --pgdata="$data" --no-sync --auth=trust --username=identity --encoding=UTF8 \
        --locale=C --wal-segsize=1 >>"$log" </dev/null || return
    # What was committed survives a crash of the server (synchronous_commit stays on), not one of
    # the machine.
    cat >>"$data/postgresql.conf" <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 64MB
fsync = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
checkpoint_timeout = 1h
max_wal_size = 1GB
autovacuum = off
max_parallel_workers_per_gather = 0
log_statement = none
timezone = 'UTC'
SETTINGS
}

initialise_primary() {
    initialise || return
    # The last of two settings counts.
    cat >>"$data/postgresql.conf" <<SETTINGS
wal_level = replica
max_wal_senders = 4
SETTINGS
}

make() {
    case $1 in
    standby) copy "$2" ;;
    primary) initialise_primary ;;
    *) initialise ;;
    esac
}

# start PORT
start() {
    "$binaries/postgres" -D "$data" -p "$1" >>"$log" 2>&1 </dev/null &
    server=$!
    tries=0
    while [ $tries -lt 3000 ]; do
        grep -q '^ready' "$data/postmaster.pid" 2>/dev/null && echo "started $server" && return
        kill -0 $server 2>/dev/null || break
        sleep 0.02
        tries=$((tries + 1))
    done
    stop QUIT
    echo "failed to start"
}

# stop SIGNAL
stop() {
    [ -n "$server" ] || return
    kill -s "$1" "$server" 2>/dev/null
    # A paused server handles no signal.
    kill -s CONT "$server" 2>/dev/null
    wait "$server"
    server=
}

if make "$@"; then
    echo "folder $folder"
else
    echo "failed to make a cluster: $(tail -n 5 "$log" | tr '\n' ' ')"
fi
while read -r command argument; do
    case $command in
    start) start "$argument" ;;
    stop) stop INT && echo "stopped" ;;
    crash) stop QUIT && echo "stopped" ;;
    esac
done
stop QUIT
rm -rf "$folder"
