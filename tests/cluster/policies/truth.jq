# The ground truth: of each row (`SOURCE TARGET FAMILY PORT`) whether it was reached.
# Input: lines of `connects`. $pods: the pods.
def target: {
  "\(.addresses[] | select(contains(":") | not))": "\(.id) 4",
  "[\(.addresses[] | select(contains(":")))]": "\(.id) 6"
};
($pods[0] | map(target) | add) as $targets
| [inputs
    | capture("^(?<source>\\S+) http://(?<address>.+):(?<port>\\d+)/ (?<seconds>[\\d.]+)$")
    | {key: "\(.source) \($targets[.address]) \(.port)", value: (.seconds | tonumber > 0)}]
| from_entries
