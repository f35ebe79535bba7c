#!/usr/bin/env bash
# Run the tests under the conditions of other machines and print the last line of each run.
#
#   tests/tools/any_machine.sh                          every condition, `make test`'s tests
#   tests/tools/any_machine.sh locale home -- tests/unit/ops
#   TEST_USER=nobody tests/tools/any_machine.sh user    as root: the tests as another user
#
# `space` and `user` test a clone of HEAD with its own .venv in ANY_MACHINE (default: "any machine" in the temporary
# folder), made by `make setup` (minutes, about 3 GB) on the first call. Exit status: the number of failures.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

CONDITIONS="plain background busy one_core umask locale home avx2 generic qemu space user"
clone="${ANY_MACHINE:-${TMPDIR:-/tmp}/any machine}/clone"
names=() arguments=()
while (($#)); do
  if [[ $1 == -- ]]; then shift; arguments=("$@"); break; fi
  [[ " $CONDITIONS " == *" $1 "* ]] || { echo "unknown condition $1: expected one of $CONDITIONS" >&2; exit 2; }
  names+=("$1"); shift
done
((${#names[@]})) || read -ra names <<<"$CONDITIONS"
tests() { .venv/bin/python -m pytest -q ${arguments[@]+"${arguments[@]}"} "$@"; }

plain() { tests; }

# A shell without job control ignores SIGINT in what it starts with &, nohup ignores SIGHUP.
background() { trap '' INT HUP; tests; }

busy() {
  local loops=() status
  # In sessions of their own, as other programs are: Linux shares the processor by session before it looks at nice.
  # They end with this script, however it ends.
  for _ in 1 2; do setsid bash -c "while kill -0 $$; do :; done" & loops+=($!); done
  renice -n 19 $BASHPID >/dev/null  # the loops keep their priority
  tests --timeout 3600
  status=$?
  kill "${loops[@]}"
  return $status
}

one_core() { taskset -p -c 0 $BASHPID >/dev/null; tests; }

umask() { builtin umask 077; tests; }

locale() { unset LC_ALL LC_CTYPE; export LANG=C TZ=Asia/Tokyo; tests; }

# A folder that not even root can make.
home() { unset XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME; export HOME=/proc/none; tests; }

avx2() { export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2; tests; }

generic() { export ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2; tests; }

# onnxruntime asks the processor itself, so only another processor will do. Emulated: only what depends on it.
qemu() {
  command -v qemu-x86_64 >/dev/null || { echo "skipped: qemu-x86_64 (package qemu-user) is not installed"; return 0; }
  local python
  python="$(readlink -f .venv/bin/python)"
  PYTHONPATH="$(echo "$PWD"/.venv/lib/python*/site-packages):$PWD/src:$PWD" qemu-x86_64 -cpu Haswell "$python" \
    -m pytest -q tests/unit/export/test_saturation.py
}

cloned() {
  [[ -d $clone ]] || git clone -q . "$clone" || return
  local git=(git -c "safe.directory=$clone" -C "$clone")  # `user` gave it away
  "${git[@]}" fetch -q origin HEAD && "${git[@]}" checkout -q --detach FETCH_HEAD || return
  cd "$clone" && make setup >/dev/null
}

space() { cloned && tests; }

user() {
  ((EUID == 0)) || { echo "skipped: only root can run the tests as another user"; return 0; }
  local user="${TEST_USER:-nobody}"
  (cloned) || return
  cd "$clone" && chown -R "$user" . || return
  HOME="$clone" runuser -u "$user" -- .venv/bin/python -m pytest -q ${arguments[@]+"${arguments[@]}"}
}

failed=0
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
for name in "${names[@]}"; do
  ("$name") >"$log" 2>&1 || { failed=$((failed + 1)); grep -E '^(FAILED|ERROR)|^E  ' "$log" | head -n 40; }
  printf '%-11s %s\n' "$name" "$(tail -n 1 "$log")"
done
exit "$failed"
