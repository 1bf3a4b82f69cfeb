# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# shellcheck shell=bash
# Sourced by tools/demo.sh and tools/test.sh: runs commands as steps. A step prints one line when it
# begins and one when it ends; what it says goes to build/log, whose tail is shown if it fails.
mkdir -p build/log
steps_passed=0 steps_failed=0 steps_skipped=0
steps_table=""

# step NAME COMMAND...   returns the command's status
step() {
  local name=$1 log begin status=0 took detail ticking
  shift
  log=build/log/${name//[^a-zA-Z0-9]/-}.log
  begin=$SECONDS
  printf '== [%4ds] %s\n' "$SECONDS" "$name"
  [ ! -t 1 ] || { ticker "$log" & ticking=$!; }
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ ! -t 1 ] || { kill "$ticking"; wait "$ticking" 2>/dev/null; printf '\r\033[K'; }
  took=$((SECONDS - begin))
  detail=$(closing_line "$log")
  if [ "$status" = 0 ]; then
    steps_passed=$((steps_passed + 1))
    printf '   ok, %d s%s\n' "$took" "${detail:+: $detail}"
    steps_table+=$(printf '%-34s ok      %5d s  %s' "$name" "$took" "$detail")$'\n'
  else
    steps_failed=$((steps_failed + 1))
    tail -n "${STEP_TAIL:-60}" "$log" | sed 's/^/   | /'
    printf '   FAILED (status %d), %d s; the whole log: %s\n' "$status" "$took" "$log"
    steps_table+=$(printf '%-34s FAILED  %5d s  %s' "$name" "$took" "$detail")$'\n'
  fi
  return "$status"
}

# On a terminal: the seconds, and the last line of the log, on one line that is written over.
ticker() {
  local begin=$SECONDS
  while sleep 1; do
    printf '\r\033[K   %d s  %.90s' $((SECONDS - begin)) "$(tail -n 1 "$1" | tr -cd '[:print:]')"
  done
}

# skip NAME REASON
skip() {
  steps_skipped=$((steps_skipped + 1))
  printf '== [%4ds] %s: skipped, %s\n' "$SECONDS" "$1" "$2"
  steps_table+=$(printf '%-34s skipped          %s' "$1" "$2")$'\n'
}

# The last line in which a test runner says how many passed; warnings are counted, not hidden.
closing_line() {
  local warnings
  warnings=$(grep -c 'warning: ' "$1" || true)
  grep -aE '^((=+ )?[0-9]+ (passed|failed|error).* in [0-9.]+s.*|[0-9]+% tests passed.*|OK: .*|All checks passed.*)$' "$1" |
    tail -1 | sed -E 's/^=+ | =+$//g' | tr -d '\n'
  [ "$warnings" = 0 ] || printf ' (%d compiler warnings: %s)' "$warnings" "$1"
}

# Ends the script.
summary() {
  printf '\n%s' "$steps_table"
  printf '%d s\n%d passed, %d failed, %d skipped\n' "$SECONDS" "$steps_passed" "$steps_failed" "$steps_skipped"
  [ "$steps_failed" = 0 ] || exit 1
  exit 0
}
