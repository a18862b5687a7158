# Owns one node: its folder, its epmd and its Erlang VM. Commands come on stdin, one a line; each gets one line back.
# End of file means that the test process is gone, whatever its end was: everything here goes with it.
#
# Only own children are signalled, by pid. They are children until waited for, so a pid cannot have become another's.

# A signal or a reader that is gone must lead to the cleaning below, not around it.
trap : HUP INT TERM PIPE
umask 077

folder=$(mktemp -d "${TMPDIR:-/tmp}/jm-rabbit.XXXXXXXX") || exit 1
cd "$folder" || exit 1
echo "$folder"

epmd=
node=

end() {
    [ -z "$1" ] && return
    kill -KILL "$1"
    wait "$1"
}

while read -r command; do
    case $command in
        epmd)
            sh ./epmd.sh </dev/null >>output 2>&1 &
            epmd=$!
            echo "$epmd"
            ;;
        node)
            sh ./node.sh </dev/null >>output 2>&1 &
            node=$!
            echo "$node"
            ;;
        kill)
            end "$node"
            node=
            echo killed
            ;;
        *)
            echo "unknown command $command"
            ;;
    esac
done

end "$node"
end "$epmd"
cd /
for _ in 1 2 3 4 5; do
    rm -rf "$folder" && break
    sleep 1
done
# Whatever else is left in this process group, this shell included. The group bears our pid, or does not exist.
kill -KILL -$$
