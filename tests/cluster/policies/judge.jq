# Judges each row (source, target, family, port) of one case. Input: what `segprobe check` printed
# on each node. $pods: the pods; $before, $after: the ground truth before and after the checks.
#
# A pod's connection to itself is not a row: it never leaves the pod, and no policy applies to it.

# What segprobe says of each row. An address of null speaks for both families.
def verdicts:
  [.[].checks[]
    | select(.check == "tcp-connect")
    | (.target | capture("^(?<name>.+):(?<port>\\d+)$")) as $target
    | "\(.target_namespace)/\($target.name)" as $id
    | .addresses[]?
    | (if .address == null then 4, 6 elif .address | startswith("[") then 6 else 4 end) as $family
    | {key: "\(.pod) \($id) \($family) \($target.port)", value: "\(.verdict) \(.reason)"}]
  | from_entries;

# `fail`, `pass`, `unverified` or `inconclusive REASON` where segprobe is right; `wrong`; `missing`
# without a verdict; `moving` without a ground truth that held still.
def judgement($reached; $verdict):
  if $verdict == null then "missing"
  elif $reached == null then "moving"
  elif $reached then if $verdict | startswith("fail ") then "fail" else "wrong" end
  elif $verdict | startswith("fail ") then "wrong"
  elif $verdict | startswith("inconclusive ") then $verdict
  else $verdict | split(" ")[0]
  end;

verdicts as $verdicts
| [$pods[0][].id as $source | $pods[0][].id | select(. != $source)
    | "\($source) \(.) \(4, 6) \(80, 81)"
    | (if $before[0][.] == $after[0][.] then $before[0][.] else null end) as $reached
    | {row: ., $reached, verdict: $verdicts[.], judgement: judgement($reached; $verdicts[.])}]
