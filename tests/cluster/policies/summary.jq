# The line of one case in the table. Input: its judged rows. $file: its file; $says: what its policy
# does; $seconds: how long it took.
def count(f): map(select(f)) | length;
{
  case: ($file | rtrimstr(".yaml")), $says, $seconds,
  rows: length,
  reached: count(.reached == true),
  fail: count(.judgement == "fail"),
  not_reached: count(.reached == false),
  pass: count(.judgement == "pass"),
  unverified: count(.judgement == "unverified"),
  inconclusive: (
    map(select(.judgement | startswith("inconclusive")).judgement | sub("inconclusive "; ""))
    | group_by(.) | map("\(length) \(.[0])") | join(", ") | if . == "" then "0" else . end),
  wrong: count(.judgement == "wrong"),
  missing: count(.judgement == "missing" or .judgement == "moving")
}
