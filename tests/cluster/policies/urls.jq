# Every address and port of the pods, as a configuration of curl. Input: the pods.
.[].addresses[]
| if contains(":") then "[\(.)]" else . end
| "http://\(.):\(80, 81)/"
| "url = \"\(.)\"", "output = \"/dev/null\""
