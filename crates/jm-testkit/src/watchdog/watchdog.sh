# Owns a server: its folder and its processes. Commands come on stdin, one a line; each gets one line back.
# End of file means that the test process is gone, whatever its end was: everything here goes with it.
#
# Only own children are signalled, by pid. They are children until waited for, so a pid cannot have become another's.
#
# $1 is the folder's name, $2 the signal that ends a process at once.

# A signal or a reader that is gone must lead to the cleaning below, not around it.
trap : HUP INT TERM PIPE
umask 077

folder=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXXXX") || exit 1
cd "$folder" || exit 1
echo "$folder"
signal=$2

# Words of the form script=pid, the newest first.
children=

# A process with children of its own may need its own signal to take them along, and a moment for it.
end() {
    kill "-$signal" "$1"
    if [ "$signal" != KILL ]; then
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            kill -0 "$1" 2>/dev/null || break
            case $(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null) in Z | "") break ;; esac
            sleep 0.1
        done
        kill -KILL "$1" 2>/dev/null
    fi
    wait "$1"
}

while read -r command script; do
    case $command in
        run)
            if sh "./$script" </dev/null >>output 2>&1; then echo done; else echo failed; fi
            ;;
        start)
            sh "./$script" </dev/null >>output 2>&1 &
            children="$script=$! $children"
            echo "$!"
            ;;
        kill)
            others=
            for child in $children; do
                case $child in
                    "$script="*) end "${child#*=}" ;;
                    *) others="$others $child" ;;
                esac
            done
            children=$others
            echo killed
            ;;
        *)
            echo "unknown command $command"
            ;;
    esac
done

for child in $children; do
    end "${child#*=}"
done
cd /
for _ in 1 2 3 4 5; do
    rm -rf "$folder" && break
    sleep 1
done
# Whatever else is left in this process group, this shell included. The group bears our pid, or does not exist.
kill -KILL -$$
