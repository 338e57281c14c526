#!/bin/sh
# Let a model pass only if its test results hold: a gate for CI.
#
#   ci_gate.sh CANDIDATE OUT [BASELINE]
#
#   CANDIDATE  checkpoint, run folder, or saved predictions (a name that ends in .csv)
#   OUT        folder for the report and junit.xml; what evalcam wrote there before is replaced
#   BASELINE   metrics.json of the model in use, or its folder; without it there is nothing to be worse than
#
# Exit code: 0 all gates passed; 4 one was missed; 2 wrong usage, 3 the data or the model is at fault, 5 the machine is:
# then nothing was decided. EVALCAM names the command, `evalcam` by default.
set -u

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: ci_gate.sh CANDIDATE OUT [BASELINE]" >&2
    exit 2
fi
candidate=$1
out=$2
baseline=${3:-}

case $candidate in
*.csv) set -- --predictions "$candidate" ;;
*) set -- --ckpt "$candidate" ;;
esac
if [ -n "$baseline" ]; then
    set -- "$@" --no-regression "$baseline:balanced_accuracy:0.02"
fi

${EVALCAM:-evalcam} evaluate "$@" --out "$out" --overwrite --quiet --junit "$out/junit.xml" \
    --fail-under accuracy.ci_low=0.8 \
    --fail-under balanced_accuracy=0.85 \
    --fail-over log_loss=0.6
code=$?

case $code in
0) echo "gate: passed; the report is in $out" >&2 ;;
4) echo "gate: missed; the report is in $out" >&2 ;;
*) echo "gate: nothing was decided (exit code $code)" >&2 ;;
esac
exit $code
