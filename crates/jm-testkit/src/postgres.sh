# Owns one PostgreSQL server: its folder and its processes. Commands come on stdin, one a line; each gets one line back.
# End of file means that the test process is gone, whatever its end was: everything here goes with it.
#
# Only the own child is signalled, by pid. It is a child until waited for, so its pid cannot have become another's.

# A signal or a reader that is gone must lead to the cleaning below, not around it.
trap : HUP INT TERM PIPE
umask 077

folder=$(mktemp -d "${TMPDIR:-/tmp}/jm-postgres.XXXXXXXX") || exit 1
cd "$folder" || exit 1
echo "$folder"

server=

# SIGQUIT is PostgreSQL's own crash: no checkpoint, no goodbye, and its helper processes go with it.
end() {
    [ -z "$server" ] && return
    kill -QUIT "$server"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -0 "$server" 2>/dev/null || break
        case $(cut -d' ' -f3 "/proc/$server/stat" 2>/dev/null) in Z | "") break ;; esac
        sleep 0.1
    done
    kill -KILL "$server" 2>/dev/null
    wait "$server"
    server=
}

while read -r command; do
    case $command in
        init)
            if sh ./init.sh </dev/null >>output 2>&1; then echo done; else echo failed; fi
            ;;
        start)
            sh ./server.sh </dev/null >>output 2>&1 &
            server=$!
            echo "$server"
            ;;
        kill)
            end
            echo killed
            ;;
        *)
            echo "unknown command $command"
            ;;
    esac
done

end
cd /
for _ in 1 2 3 4 5; do
    rm -rf "$folder" && break
    sleep 1
done
# Whatever else is left in this process group, this shell included. The group bears our pid, or does not exist.
kill -KILL -$$
