#!/bin/sh
# Stands before waypost where the ports of the pages are taken: it says the ports that take their place, unless the
# command names one itself. The first argument is the program.
program=$1
shift
case "$(basename "$program") $1 $2" in
"waypost serve "*) flag=--listen value=127.0.0.1:$README_PORT_SERVE ;;
"waypost listen "*) flag=--port value=$README_PORT_LISTEN ;;
"waypost send "*) flag=--to value=http://127.0.0.1:$README_PORT_SERVE ;;
"waypost event "* | "waypost recover "* | "waypost token "* | "waypost plugin push" | "waypost plugin replay")
  flag=--server value=http://127.0.0.1:$README_PORT_SERVE ;;
*) exec "$program" "$@" ;;
esac
for word; do
  case "$word" in "$flag" | "$flag"=*) exec "$program" "$@" ;; esac
done
exec "$program" "$@" "$flag" "$value"
