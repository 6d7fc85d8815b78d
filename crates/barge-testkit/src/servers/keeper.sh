# Keeps one server, and ends it when nobody uses it any more. Runs in the server's directory, as the server's account.
#
# Standard input is the named pipe `users`. Whoever uses the server holds that pipe open for writing, and the kernel
# closes it however a process dies: the end of the input means that there is no user. Lines in it are commands:
#   start   start the server; its process identifier is then in the file `pid`
#   reap    wait until the server has ended, and remove `pid`
#   join    nothing: a new user says that it has come
#
# Arguments: the directory, absolute; seconds to wait for another user after the last; the signal that ends the server;
# the server's command.
directory=$1
grace=$2
signal=$3
shift 3
server=

while :; do
    while read -r command; do
        case $command in
        start)
            "$@" </dev/null >>log 2>&1 &
            server=$!
            echo "$server" >pid.new
            mv pid.new pid
            ;;
        reap)
            wait "$server"
            server=
            rm -f pid
            ;;
        esac
    done

    [ "$grace" = 0 ] && break
    sleep "$grace"
    # Who opened the pipe while it still had its name has written a line or will. Who comes later does not find the pipe
    # and waits for the directory to go, or for the name to come back.
    mv users closed
    read -r command || break
    mv closed users
done

if [ -n "$server" ]; then
    kill -s "$signal" "$server"
    wait "$server"
fi
rm -rf "$directory"
