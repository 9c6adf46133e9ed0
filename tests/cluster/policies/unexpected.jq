# Which pairs are not as expected, a line for each row. Input: the ground truth. $open, $closed:
# lists of SOURCE>TARGET[:PORT].
def rows:
  splits(" +")
  | select(. != "")
  | capture("^(?<source>.+)>(?<target>[^:]+)(:(?<port>\\d+))?$")
  | "\(.source) \(.target) \(4, 6) \(.port // (80, 81))";
. as $reached
| ($open | rows | select($reached[.] != true) | "\(.): closed, expected open"),
  ($closed | rows | select($reached[.] != false) | "\(.): open, expected closed")
