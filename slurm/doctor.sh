#!/bin/bash
# The batch script of `check.py doctor --from-node`: the same checks, made where jobs run. The python is the jobs' own.
# Arguments: the install root, the python, the site file, the credentials file, the folder for the answer, an input ("" for none).
unset "${!PYTHON@}" # as for a job

root=$1 python=$2 site=$3 credentials=$4 folder=$5 input=$6

cd "$root" || exit 72
exec "$python" -X again "$root/check.py" doctor --on-node "$folder" --site "$site" --credentials "$credentials" --input "$input"
