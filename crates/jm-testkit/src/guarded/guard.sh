# Becomes the program given, so that its pid and its end are the program's, and leaves a guard beside it. End of file on
# stdin means that the test process is gone or wants an end: the guard then kills the whole process group.
#
# The group bears the program's pid. As the guard is in it, that number cannot have become another's.
exec 3<&0 </dev/null
(
    trap '' HUP INT TERM PIPE
    while read -r _; do :; done
    kill -KILL -$$
) <&3 >/dev/null 2>&1 &
# The shell's own; the program is to see nothing but what it was given.
unset PWD OLDPWD SHLVL
exec "$@" 3<&-
