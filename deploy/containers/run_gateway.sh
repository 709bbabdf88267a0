#!/usr/bin/env bash
# Runs Envoy as a container's first process, and lets requests in flight finish before it ends, which Envoy itself does
# not: it ends at once when it is asked to.
#
#     run_gateway.sh ADMIN_SOCKET DRAIN_S envoy ARGUMENT ...
#
# Asked to end, it fails the health check, tells clients to leave (GOAWAY, connection: close), closes the listeners
# after Envoy's --drain-time-s, and ends Envoy once nothing is in flight, or after DRAIN_S seconds. Envoy's image has
# neither curl nor a bash that opens UNIX sockets; perl-base is part of every Debian and Ubuntu.
set -u
socket=$1 drain_s=$2
shift 2

admin() { # METHOD PATH: prints Envoy's answer
  perl -MIO::Socket::UNIX -e '
    alarm 5;
    my ($path, $method, $target) = @ARGV;
    my $line = IO::Socket::UNIX->new(Peer => $path) or die "the administration of Envoy does not answer: $!\n";
    print $line "$method $target HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    print while <$line>;
  ' "$socket" "$1" "$2"
}

num_active() { # requests in flight; the one that asks is not counted
  local sum=0 name value answer
  answer=$(admin GET '/stats?filter=^http\..*\.downstream_rq_active$') || return 1
  while IFS=': ' read -r name value; do
    case $name in
      http.admin.*) ;;
      http.*.downstream_rq_active) sum=$((sum + ${value//[^0-9]/})) ;;
    esac
  done <<<"$answer"
  echo "$sum"
}

drain() {
  local deadline=$((SECONDS + drain_s)) active=unknown num_idle=0
  echo "draining for at most $drain_s s" >&2
  if admin POST /healthcheck/fail >/dev/null && admin POST '/drain_listeners?graceful' >/dev/null; then
    # Twice in a row: between two short requests of one client nothing is in flight either.
    while active=$(num_active) && [ "$num_idle" -lt 2 ] && [ "$SECONDS" -lt "$deadline" ]; do
      [ "$active" = 0 ] && num_idle=$((num_idle + 1)) || num_idle=0
      sleep 0.2
    done
    echo "ending with $active requests in flight" >&2
  fi
  kill -TERM "$envoy" 2>/dev/null
}

"$@" &
envoy=$!
trap drain TERM INT
status=0
# A trap interrupts a wait; the status is that of the wait in which Envoy has ended.
while kill -0 "$envoy" 2>/dev/null; do
  wait "$envoy"
  status=$?
done
exit "$status"
