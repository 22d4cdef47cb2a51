#!/usr/bin/env bash
# A session on the command line: check a plan, run it, ask a question, show and replay the run.
# Needs `llmcompiler` on the path and the embedded model; the first run downloads it.
set -euo pipefail
cd "$(dirname "$0")"
store=$(mktemp -d)/runs.sqlite
trap 'rm -rf "$(dirname "$store")"' EXIT

show() { echo; echo "\$ $*"; "$@"; }

show llmcompiler check saved_dag.plan
show llmcompiler run saved_dag.plan --input first=Peru --input second=Chile --store "$store"
show llmcompiler run "What is the capital of the larger of Spain and Poland?" --store "$store"
show llmcompiler runs --store "$store"
show llmcompiler show last --store "$store"
show llmcompiler replay last --store "$store"
show llmcompiler graph last --store "$store"
